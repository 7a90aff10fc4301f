package polyglot;

import io.lmchat.v1.ChatCompletion;
import io.lmchat.v1.ChatCompletionChunk;
import io.lmchat.v1.ContentPart;
import io.lmchat.v1.Delta;
import io.lmchat.v1.FinishReason;
import io.lmchat.v1.Message;
import io.lmchat.v1.Role;
import io.lmchat.v1.ToolCall;
import io.lmchat.v1.ToolCallDelta;

/** Folds the chunks of a stream into a completion. Log probabilities and audio are left out. */
public final class Fold {
  private final ChatCompletion.Builder completion = ChatCompletion.newBuilder();

  /** What the chunks so far add up to. */
  public ChatCompletion completion() {
    return completion.build();
  }

  /** Adds one chunk. */
  public void add(ChatCompletionChunk chunk) {
    completion.setId(chunk.getId()).setCreated(chunk.getCreated()).setModel(chunk.getModel());
    if (chunk.hasUsage()) {
      completion.setUsage(chunk.getUsage());
    }
    if (chunk.hasLmchat()) {
      completion.setLmchat(chunk.getLmchat());
    }
    for (var piece : chunk.getChoicesList()) {
      while (completion.getChoicesCount() <= piece.getIndex()) {
        int index = completion.getChoicesCount();
        completion.addChoicesBuilder().setIndex(index).getMessageBuilder().setRole(Role.ROLE_ASSISTANT);
      }
      var choice = completion.getChoicesBuilder(piece.getIndex());
      if (piece.getFinishReason() != FinishReason.FINISH_REASON_UNSPECIFIED) {
        choice.setFinishReason(piece.getFinishReason());
      }
      if (piece.hasStopSequence()) {
        choice.setStopSequence(piece.getStopSequence());
      }
      add(choice.getMessageBuilder(), piece.getDelta());
    }
  }

  private static void add(Message.Builder message, Delta delta) {
    if (!delta.getContent().isEmpty()) {
      if (message.getContentCount() == 0) {
        message.addContentBuilder();
      }
      var part = message.getContentBuilder(0);
      part.setText(part.getText() + delta.getContent());
    }
    if (delta.hasRefusal()) {
      message.setRefusal(message.getRefusal() + delta.getRefusal());
    }
    if (delta.hasReasoningContent()) {
      message.setReasoningContent(message.getReasoningContent() + delta.getReasoningContent());
    }
    message.addAllReasoningDetails(delta.getReasoningDetailsList());
    message.addAllAnnotations(delta.getAnnotationsList());
    for (var piece : delta.getToolCallsList()) {
      while (message.getToolCallsCount() <= piece.getIndex()) {
        message.addToolCallsBuilder();
      }
      add(message.getToolCallsBuilder(piece.getIndex()), piece);
    }
  }

  private static void add(ToolCall.Builder call, ToolCallDelta piece) {
    call.setId(call.getId() + piece.getId());
    if (!piece.getExtraJson().isEmpty()) {
      call.setExtraJson(piece.getExtraJson());
    }
    if (piece.hasFunction()) {
      var function = call.getFunctionBuilder();
      function.setName(function.getName() + piece.getFunction().getName());
      function.setArguments(function.getArguments() + piece.getFunction().getArguments());
    } else if (piece.hasCustom()) {
      var custom = call.getCustomBuilder();
      custom.setName(custom.getName() + piece.getCustom().getName());
      custom.setInput(custom.getInput() + piece.getCustom().getInput());
    }
  }

  /** The text of a message. */
  public static String text(Message message) {
    var text = new StringBuilder();
    for (ContentPart part : message.getContentList()) {
      text.append(part.getText());
    }
    return text.toString();
  }
}
