package polyglot;

import com.google.gson.Gson;
import io.grpc.CallCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.lmchat.v1.ChatCompletion;
import io.lmchat.v1.ChatCompletionRequest;
import io.lmchat.v1.ChatCompletionsGrpc;
import io.lmchat.v1.GetModelRequest;
import io.lmchat.v1.Model;
import io.lmchat.v1.ModelsGrpc;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * Calls of one gateway over one channel with keepalive and retries, which threads may share. A model to copy. Calls
 * throw {@link ChatException}.
 */
public final class ChatClient implements AutoCloseable {
  /** The time a call may take unless told otherwise. */
  public static final Duration TIMEOUT = Duration.ofSeconds(600);

  /** Bytes of the largest completion; gRPC's own limit is 4 MiB. */
  private static final int MAX_MESSAGE = 64 << 20;

  /**
   * UNAVAILABLE means that no content had left: the call may be repeated, also a stream before its first chunk.
   */
  private static final String SERVICE_CONFIG =
      """
      {
        "methodConfig": [{
          "name": [{"service": "lmchat.v1.ChatCompletions"}, {"service": "lmchat.v1.Models"}],
          "retryPolicy": {
            "maxAttempts": 3,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"]
          }
        }]
      }
      """;

  private final ManagedChannel channel;
  private final ChatCompletionsGrpc.ChatCompletionsBlockingStub chat;
  private final ModelsGrpc.ModelsBlockingStub models;

  /** A client of the gateway at {@code address}; it connects with its first call. */
  @SuppressWarnings("unchecked")
  public ChatClient(String address, String key) {
    channel =
        ManagedChannelBuilder.forTarget(address)
            .usePlaintext()
            .keepAliveTime(30, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .maxInboundMessageSize(MAX_MESSAGE)
            .defaultServiceConfig(new Gson().fromJson(SERVICE_CONFIG, Map.class))
            .build();
    var credentials = key.isEmpty() ? null : new BearerToken(key);
    chat = ChatCompletionsGrpc.newBlockingStub(channel).withCallCredentials(credentials);
    models = ModelsGrpc.newBlockingStub(channel).withCallCredentials(credentials);
  }

  /** The whole completion. */
  public ChatCompletion complete(ChatCompletionRequest request, Duration timeout) {
    return call(() -> chat.withDeadlineAfter(timeout).createChatCompletion(request));
  }

  /** The completion in chunks, as they arrive. */
  public ChatStream stream(ChatCompletionRequest request, Duration timeout) {
    return new ChatStream(() -> chat.withDeadlineAfter(timeout).streamChatCompletion(request));
  }

  /** One model of the catalogue. */
  public Model model(String id) {
    var request = GetModelRequest.newBuilder().setModel(id).build();
    return call(() -> models.withDeadlineAfter(TIMEOUT).getModel(request));
  }

  /** Closes the channel, and ends its calls. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  static <T> T call(Supplier<T> call) {
    try {
      return call.get();
    } catch (StatusRuntimeException error) {
      throw ChatException.of(error);
    }
  }

  /** Sends the key with every call. */
  private static final class BearerToken extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Metadata headers = new Metadata();

    BearerToken(String key) {
      headers.put(AUTHORIZATION, "Bearer " + key);
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
      applier.apply(headers);
    }
  }
}
