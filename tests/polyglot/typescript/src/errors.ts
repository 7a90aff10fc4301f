import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "lmchat-client/google/rpc/error_details_pb";

/** A failed call. */
export class ChatError extends Error {
  override readonly name = "ChatError";

  constructor(
    message: string,
    /** The gRPC status, e.g. `INVALID_ARGUMENT`. */
    readonly code: string,
    /** An ErrorReason of the contract, without its prefix; empty where the gateway was not reached. */
    readonly reason: string,
    /** The invalid field of the request. */
    readonly param: string,
    /** Seconds after which the call may succeed. */
    readonly retryAfter: number | undefined,
    readonly requestId: string,
    options: ErrorOptions,
  ) {
    super(message, options);
  }

  /** From the error of a client's call, with the details that google.rpc.Status holds. */
  static from(error: unknown): ChatError {
    if (error instanceof ChatError) return error;
    const failure = ConnectError.from(error);
    const [info] = failure.findDetails(ErrorInfoSchema);
    const [retry] = failure.findDetails(RetryInfoSchema);
    // This side's deadline comes without details.
    const reason = failure.code === Code.DeadlineExceeded ? "TIMEOUT" : "";
    const delay = retry?.retryDelay;
    return new ChatError(
      failure.rawMessage,
      statusName(failure.code),
      info?.reason ?? reason,
      info?.metadata["param"] ?? "",
      delay && Number(delay.seconds) + delay.nanos / 1e9,
      info?.metadata["request_id"] ?? "",
      { cause: failure },
    );
  }
}

/** gRPC's name of a status: `INVALID_ARGUMENT` for `InvalidArgument`, and CANCELLED with two L. */
function statusName(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}
