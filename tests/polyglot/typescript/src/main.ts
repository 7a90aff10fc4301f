/** Runs the scenarios of tests/polyglot/scenarios.py that standard input names, over one connection. */
import { createInterface } from "node:readline";
import { ChatClient } from "./client.js";
import { ChatError } from "./errors.js";
import { scenarios, show } from "./scenarios.js";

/** The client of a scenario that does not use the shared one. */
function otherClient(name: string): ChatClient | undefined {
  if (name === "missing_key") return new ChatClient(url, "");
  if (name === "wrong_key") return new ChatClient(url, "wrong");
  if (name === "unreachable") return new ChatClient("http://127.0.0.1:1", "");
  return undefined;
}

async function run(client: ChatClient, name: string): Promise<void> {
  try {
    show({ done: await scenarios[name]!(client, name) });
  } catch (error) {
    if (!(error instanceof ChatError)) throw error;
    const { code, reason, param, retryAfter } = error;
    show({ error: { code, reason, param, retry_after: retryAfter ?? null } });
  }
}

const url = `http://${process.argv[2]}`;
const shared = new ChatClient(url, process.env["LMCHAT_API_KEY"] ?? "");
for await (const name of createInterface({ input: process.stdin })) {
  const other = otherClient(name);
  await run(other ?? shared, name);
  other?.close();
}
shared.close();
