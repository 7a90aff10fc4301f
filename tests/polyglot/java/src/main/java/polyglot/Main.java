package polyglot;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** Runs the scenarios of tests/polyglot/scenarios.py that standard input names, over one channel. */
public final class Main {
  private static final Gson GSON = new GsonBuilder().serializeNulls().create();
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  private Main() {}

  public static void main(String[] arguments) throws IOException {
    var names = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    try (var shared = new ChatClient(arguments[0], System.getenv("LMCHAT_API_KEY"))) {
      String name;
      while ((name = names.readLine()) != null) {
        try (var other = otherClient(name, arguments[0])) {
          run(other == null ? shared : other, name);
        }
      }
    }
  }

  /** The client of a scenario that does not use the shared one, else null. */
  private static ChatClient otherClient(String name, String address) {
    return switch (name) {
      case "missing_key" -> new ChatClient(address, "");
      case "wrong_key" -> new ChatClient(address, "wrong");
      case "unreachable" -> new ChatClient("127.0.0.1:1", "");
      default -> null;
    };
  }

  private static void run(ChatClient client, String name) {
    try {
      show("done", Scenarios.ALL.get(name).run(client, name));
    } catch (ChatException error) {
      var line = new HashMap<String, Object>();
      line.put("code", error.code().name());
      line.put("reason", error.reason());
      line.put("param", error.param());
      line.put("retry_after", error.retryAfter().map(delay -> delay.toMillis() / 1e3).orElse(null));
      show("error", line);
    }
  }

  /** Prints one line. */
  static void show(String name, Object value) {
    OUT.println(GSON.toJson(Map.of(name, value)));
  }
}
