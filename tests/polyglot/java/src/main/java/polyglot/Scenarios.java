package polyglot;

import static java.util.Map.entry;

import com.google.gson.Gson;
import io.grpc.Status;
import io.lmchat.v1.ChatCompletion;
import io.lmchat.v1.ChatCompletionRequest;
import io.lmchat.v1.ContentPart;
import io.lmchat.v1.FunctionDefinition;
import io.lmchat.v1.ImageUrl;
import io.lmchat.v1.JsonSchemaFormat;
import io.lmchat.v1.Message;
import io.lmchat.v1.ResponseFormat;
import io.lmchat.v1.Role;
import io.lmchat.v1.StreamOptions;
import io.lmchat.v1.Tool;
import io.lmchat.v1.ToolCall;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;

/** The scenarios; the result of each is printed as {@code done}. */
final class Scenarios {
  /** One scenario; the model has its name. */
  interface Scenario {
    Object run(ChatClient client, String model);
  }

  static final Map<String, Scenario> ALL =
      Map.ofEntries(
          entry("unary", Scenarios::unary),
          entry("stream", Scenarios::stream),
          entry("first_token", Scenarios::stream),
          entry("reasoning", Scenarios::stream),
          entry("refusal", Scenarios::stream),
          entry("stop_sequence", Scenarios::stopSequence),
          entry("two_choices", Scenarios::twoChoices),
          entry("tool_calls", Scenarios::toolCalls),
          entry("tools_two_turns", Scenarios::toolsTwoTurns),
          entry("structured_output", Scenarios::structuredOutput),
          entry("image", Scenarios::image),
          entry("large_completion", Scenarios::largeCompletion),
          entry("fallback", Scenarios::fallback),
          entry("retry", Scenarios::unary),
          entry("retry_stream", Scenarios::stream),
          entry("upstream_error", Scenarios::unary),
          entry("model", Scenarios::model),
          entry("invalid_field", Scenarios::invalidField),
          entry("invalid_field_stream", Scenarios::invalidFieldStream),
          entry("missing_key", Scenarios::unary),
          entry("wrong_key", Scenarios::unary),
          entry("unknown_model", Scenarios::unary),
          entry("rate_limited", Scenarios::unary),
          entry("context_length", Scenarios::unary),
          entry("broken_stream", Scenarios::stream),
          entry("deadline", Scenarios::deadline),
          entry("deadline_stream", Scenarios::deadlineStream),
          entry("unreachable", Scenarios::unary),
          entry("cancel", Scenarios::cancel),
          entry("leave", Scenarios::leave));

  private static final Gson GSON = new Gson();
  private static final byte[] PNG = {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

  private Scenarios() {}

  private static ContentPart text(String text) {
    return ContentPart.newBuilder().setText(text).build();
  }

  private static ChatCompletionRequest.Builder ask(String model, ContentPart... content) {
    return ChatCompletionRequest.newBuilder()
        .setModel(model)
        .addMessages(Message.newBuilder().setRole(Role.ROLE_USER).addAllContent(List.of(content)))
        .setStreamOptions(StreamOptions.newBuilder().setIncludeUsage(true));
  }

  private static ChatCompletionRequest.Builder hello(String model) {
    return ask(model, text("Hello"));
  }

  private static Map<String, Object> summary(ChatCompletion completion) {
    var choices = new ArrayList<>();
    for (var choice : completion.getChoicesList()) {
      var calls = new ArrayList<>();
      for (var call : choice.getMessage().getToolCallsList()) {
        var function = call.getFunction();
        calls.add(Map.of("id", call.getId(), "name", function.getName(), "arguments", function.getArguments()));
      }
      choices.add(
          Map.of(
              "content", Fold.text(choice.getMessage()),
              "reasoning", choice.getMessage().getReasoningContent(),
              "refusal", choice.getMessage().getRefusal(),
              "tool_calls", calls,
              "finish_reason", choice.getFinishReason().name(),
              "stop_sequence", choice.getStopSequence()));
    }
    return Map.of(
        "choices", choices,
        "total_tokens", completion.getUsage().getTotalTokens(),
        "provider", completion.getLmchat().getProvider());
  }

  private static Object complete(ChatClient client, ChatCompletionRequest.Builder request) {
    return summary(client.complete(request.build(), ChatClient.TIMEOUT));
  }

  /** Prints the tokens as they arrive. */
  private static ChatCompletion printTokens(ChatClient client, ChatCompletionRequest.Builder request) {
    try (var chunks = client.stream(request.build(), ChatClient.TIMEOUT)) {
      return chunks.fold(token -> Main.show("token", token));
    }
  }

  private static Object unary(ChatClient client, String model) {
    return complete(client, hello(model));
  }

  private static Object stream(ChatClient client, String model) {
    return summary(printTokens(client, hello(model)));
  }

  private static Object stopSequence(ChatClient client, String model) {
    return summary(printTokens(client, hello(model).addStop("END")));
  }

  private static Object twoChoices(ChatClient client, String model) {
    return summary(printTokens(client, hello(model).setN(2)));
  }

  private static ChatCompletionRequest.Builder withTools(String model) {
    var schema =
        """
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        """;
    var weather = FunctionDefinition.newBuilder().setName("weather").setParametersJson(schema);
    return hello(model).addTools(Tool.newBuilder().setFunction(weather));
  }

  private static Object toolCalls(ChatClient client, String model) {
    return summary(printTokens(client, withTools(model)));
  }

  private record WeatherArguments(String city) {}

  private static Message weather(ToolCall call) {
    var arguments = GSON.fromJson(call.getFunction().getArguments(), WeatherArguments.class);
    return Message.newBuilder()
        .setRole(Role.ROLE_TOOL)
        .setToolCallId(call.getId())
        .addContent(text("18 degrees in " + arguments.city()))
        .build();
  }

  private static Object toolsTwoTurns(ChatClient client, String model) {
    var request = withTools(model);
    while (true) {
      var completion = printTokens(client, request);
      var message = completion.getChoices(0).getMessage();
      if (message.getToolCallsCount() == 0) {
        return summary(completion);
      }
      request.addMessages(message);
      message.getToolCallsList().forEach(call -> request.addMessages(weather(call)));
    }
  }

  private record City(String city, String country) {}

  private static Object structuredOutput(ChatClient client, String model) {
    var schema =
        """
        {
          "type": "object",
          "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
          "required": ["city", "country"],
          "additionalProperties": false
        }
        """;
    var format = JsonSchemaFormat.newBuilder().setName("city").setSchemaJson(schema).setStrict(true);
    var request = hello(model).setResponseFormat(ResponseFormat.newBuilder().setJsonSchema(format));
    var completion = client.complete(request.build(), ChatClient.TIMEOUT);
    return GSON.fromJson(Fold.text(completion.getChoices(0).getMessage()), City.class);
  }

  private static Object image(ChatClient client, String model) {
    var url = "data:image/png;base64," + Base64.getEncoder().encodeToString(PNG);
    var picture = ContentPart.newBuilder().setImageUrl(ImageUrl.newBuilder().setUrl(url)).build();
    return complete(client, ask(model, text("What is this?"), picture));
  }

  private static Object largeCompletion(ChatClient client, String model) {
    var completion = client.complete(hello(model).build(), ChatClient.TIMEOUT);
    return Map.of("characters", Fold.text(completion.getChoices(0).getMessage()).length());
  }

  private static Object fallback(ChatClient client, String model) {
    var request = hello(model);
    request.getLmchatBuilder().getRoutingBuilder().setMaxProviderTries(2);
    return complete(client, request);
  }

  private static Object model(ChatClient client, String id) {
    var model = client.model(id);
    return Map.of("id", model.getId(), "context_length", model.getLmchat().getContextLength());
  }

  private static Object invalidField(ChatClient client, String model) {
    return complete(client, hello(model).setTemperature(9));
  }

  private static Object invalidFieldStream(ChatClient client, String model) {
    return summary(printTokens(client, hello(model).setTemperature(9)));
  }

  private static Object deadline(ChatClient client, String model) {
    return summary(client.complete(hello(model).build(), Duration.ofMillis(500)));
  }

  private static Object deadlineStream(ChatClient client, String model) {
    try (var chunks = client.stream(hello(model).build(), Duration.ofMillis(500))) {
      return summary(chunks.fold(token -> Main.show("token", token)));
    }
  }

  private static Object cancel(ChatClient client, String model) {
    try (var chunks = client.stream(hello(model).build(), ChatClient.TIMEOUT)) {
      chunks.fold(
          token -> {
            Main.show("token", token);
            chunks.close();
          });
    } catch (ChatException error) {
      return Map.of("cancelled", error.code() == Status.Code.CANCELLED);
    }
    return Map.of("cancelled", false);
  }

  private static Object leave(ChatClient client, String model) {
    try (var chunks = client.stream(hello(model).build(), ChatClient.TIMEOUT)) {
      for (var chunk : chunks) {
        for (var choice : chunk.getChoicesList()) {
          if (!choice.getDelta().getContent().isEmpty()) {
            Main.show("token", choice.getDelta().getContent());
            return Map.of("left", true);
          }
        }
      }
    }
    return Map.of("left", false);
  }
}
