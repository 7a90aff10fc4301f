/**
 * A client of lmchat over gRPC for Node: a connection with keepalive, the key as metadata, retries, deadlines, and
 * errors with the details of google.rpc.Status (errors.ts). Streams fold into a completion (fold.ts). A model to copy.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import type { ChatCompletion, ChatCompletionChunk, ChatCompletionRequestSchema } from "lmchat-client/lmchat/v1/chat_pb";
import { ChatCompletions } from "lmchat-client/lmchat/v1/chat_service_pb";
import type { Model } from "lmchat-client/lmchat/v1/model_pb";
import { Models } from "lmchat-client/lmchat/v1/model_service_pb";
import { setTimeout } from "node:timers/promises";
import { ChatError } from "./errors.js";

/** Milliseconds a call may take, with its retries, unless told otherwise. */
const TIMEOUT = 600_000;
/** Bytes of the largest completion. */
const MAX_MESSAGE = 64 << 20;
const MAX_ATTEMPTS = 3;
/** Milliseconds before the second attempt; twice as many before the third. */
const INITIAL_BACKOFF = 100;

/** A request as an object literal. */
export type Request = Exclude<MessageInitShape<typeof ChatCompletionRequestSchema>, { $typeName: string }>;

/** Sends the key with every call. */
function bearerToken(key: string): Interceptor {
  return (next) => (request) => {
    if (key !== "") request.header.set("authorization", `Bearer ${key}`);
    return next(request);
  };
}

/** Calls of one gateway over one connection. Calls throw ChatError; options take `timeoutMs` and a `signal`. */
export class ChatClient {
  readonly #session: Http2SessionManager;
  readonly #chat: Client<typeof ChatCompletions>;
  readonly #models: Client<typeof Models>;

  constructor(url: string, key: string) {
    this.#session = new Http2SessionManager(url, { pingIntervalMs: 30_000, pingTimeoutMs: 10_000 });
    const transport = createGrpcTransport({
      baseUrl: url,
      sessionManager: this.#session,
      readMaxBytes: MAX_MESSAGE,
      interceptors: [bearerToken(key)],
    });
    this.#chat = createClient(ChatCompletions, transport);
    this.#models = createClient(Models, transport);
  }

  /** The whole completion. */
  complete(request: Request, options: CallOptions = {}): Promise<ChatCompletion> {
    return withRetries((attempt) => this.#chat.createChatCompletion(request, attempt), options);
  }

  /** The completion in chunks, as they arrive. Leaving the loop ends the call, and the gateway that of the provider. */
  async *stream(request: Request, options: CallOptions = {}): AsyncGenerator<ChatCompletionChunk, void> {
    const left = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
    try {
      const [first, chunks] = await withRetries(
        async (attempt) => {
          const chunks = this.#chat.streamChatCompletion(request, attempt)[Symbol.asyncIterator]();
          return [await chunks.next(), chunks] as const;
        },
        { ...options, signal },
      );
      for (let next = first; !next.done; next = await chunks.next()) yield next.value;
    } catch (error) {
      throw ChatError.from(error);
    } finally {
      left.abort();
    }
  }

  /** One model of the catalogue. */
  model(id: string, options: CallOptions = {}): Promise<Model> {
    return withRetries((attempt) => this.#models.getModel({ model: id }, attempt), options);
  }

  /** Closes the connection. */
  close(): void {
    this.#session.abort();
  }
}

/**
 * Calls `call` again if it fails as UNAVAILABLE, since Connect has no retry policy: no content had left, so the call
 * may be repeated, also a stream before its first chunk. All attempts share one deadline.
 */
async function withRetries<T>(call: (options: CallOptions) => Promise<T>, options: CallOptions): Promise<T> {
  const deadline = Date.now() + (options.timeoutMs ?? TIMEOUT);
  for (let attempt = 1; ; attempt++) {
    try {
      return await call({ ...options, timeoutMs: Math.max(deadline - Date.now(), 1) });
    } catch (failure) {
      const error = ChatError.from(failure);
      if (attempt === MAX_ATTEMPTS || error.code !== "UNAVAILABLE") throw error;
    }
    const backoff = INITIAL_BACKOFF * 2 ** (attempt - 1);
    await setTimeout(backoff * (0.8 + 0.4 * Math.random()));
  }
}
