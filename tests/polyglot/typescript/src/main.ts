/** Runs the scenarios of tests/polyglot/scenarios.py that standard input names, over one connection. */
import { createInterface } from "node:readline";
import { ChatClient } from "./client.js";
import { ChatError } from "./errors.js";
import { scenarios, show } from "./scenarios.js";

/** The keys of the clients that do not use the real one. */
const KEYS = new Map([["missing_key", ""], ["wrong_key", "wrong"]]);

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
  const key = KEYS.get(name);
  const client = key === undefined ? shared : new ChatClient(url, key);
  await run(client, name);
  if (client !== shared) client.close();
}
shared.close();
