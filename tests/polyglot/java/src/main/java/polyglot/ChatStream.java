package polyglot;

import io.grpc.Context;
import io.lmchat.v1.ChatCompletion;
import io.lmchat.v1.ChatCompletionChunk;
import java.util.Iterator;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * The chunks of one completion, as they arrive; for one loop. Closing it before the end cancels the call, and the
 * gateway closes that of the provider; any thread may do so. The iterator throws {@link ChatException} if the stream
 * fails or breaks.
 */
public final class ChatStream implements Iterable<ChatCompletionChunk>, AutoCloseable {
  private final Context.CancellableContext context = Context.current().withCancellation();
  private final Iterator<ChatCompletionChunk> chunks;

  /** {@code start} makes the call, in a context that is cancelled by closing. */
  ChatStream(Supplier<Iterator<ChatCompletionChunk>> start) {
    var previous = context.attach();
    try {
      chunks = start.get();
    } finally {
      context.detach(previous);
    }
  }

  @Override
  public Iterator<ChatCompletionChunk> iterator() {
    return new Iterator<>() {
      @Override
      public boolean hasNext() {
        return ChatClient.call(chunks::hasNext);
      }

      @Override
      public ChatCompletionChunk next() {
        return ChatClient.call(chunks::next);
      }
    };
  }

  /** The completion that the chunks add up to; {@code token} gets each content as it arrives. */
  public ChatCompletion fold(Consumer<String> token) {
    var fold = new Fold();
    for (var chunk : this) {
      fold.add(chunk);
      for (var choice : chunk.getChoicesList()) {
        if (!choice.getDelta().getContent().isEmpty()) {
          token.accept(choice.getDelta().getContent());
        }
      }
    }
    return fold.completion();
  }

  @Override
  public void close() {
    context.cancel(null);
  }
}
