package polyglot;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Optional;

/** A failed call, with the details that google.rpc.Status holds. */
public final class ChatException extends RuntimeException {
  private static final long serialVersionUID = 1;

  private final Status.Code code;
  private final transient ErrorInfo info;
  private final Duration retryAfter;

  private ChatException(StatusRuntimeException cause, ErrorInfo info, Duration retryAfter) {
    super(cause.getStatus().getDescription(), cause);
    this.code = cause.getStatus().getCode();
    this.info = info;
    this.retryAfter = retryAfter;
  }

  /** From the error of a stub's call. */
  static ChatException of(StatusRuntimeException error) {
    var info = ErrorInfo.getDefaultInstance();
    Duration retryAfter = null;
    if (error.getStatus().getCode() == Status.Code.DEADLINE_EXCEEDED) {
      info = ErrorInfo.newBuilder().setReason("TIMEOUT").build(); // this side's deadline comes without details
    }
    try {
      for (var detail : StatusProto.fromThrowable(error).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
        }
      }
    } catch (InvalidProtocolBufferException invalid) {
      error.addSuppressed(invalid);
    }
    return new ChatException(error, info, retryAfter);
  }

  public Status.Code code() {
    return code;
  }

  /** An ErrorReason of the contract, without its prefix; empty where the gateway was not reached. */
  public String reason() {
    return info.getReason();
  }

  /** The invalid field of the request; empty where there is none. */
  public String param() {
    return info.getMetadataOrDefault("param", "");
  }

  /** The time after which the call may succeed. */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(retryAfter);
  }

  public String requestId() {
    return info.getMetadataOrDefault("request_id", "");
  }
}
