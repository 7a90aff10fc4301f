package io.lmchat.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Chat completions over gRPC. Both calls take the same request.
 * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
 * ErrorReason) and, where it applies, BadRequest and RetryInfo.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class ChatCompletionsGrpc {

  private ChatCompletionsGrpc() {}

  public static final java.lang.String SERVICE_NAME = "lmchat.v1.ChatCompletions";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest,
      io.lmchat.v1.ChatCompletion> getCreateChatCompletionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CreateChatCompletion",
      requestType = io.lmchat.v1.ChatCompletionRequest.class,
      responseType = io.lmchat.v1.ChatCompletion.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest,
      io.lmchat.v1.ChatCompletion> getCreateChatCompletionMethod() {
    io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest, io.lmchat.v1.ChatCompletion> getCreateChatCompletionMethod;
    if ((getCreateChatCompletionMethod = ChatCompletionsGrpc.getCreateChatCompletionMethod) == null) {
      synchronized (ChatCompletionsGrpc.class) {
        if ((getCreateChatCompletionMethod = ChatCompletionsGrpc.getCreateChatCompletionMethod) == null) {
          ChatCompletionsGrpc.getCreateChatCompletionMethod = getCreateChatCompletionMethod =
              io.grpc.MethodDescriptor.<io.lmchat.v1.ChatCompletionRequest, io.lmchat.v1.ChatCompletion>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CreateChatCompletion"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ChatCompletionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ChatCompletion.getDefaultInstance()))
              .setSchemaDescriptor(new ChatCompletionsMethodDescriptorSupplier("CreateChatCompletion"))
              .build();
        }
      }
    }
    return getCreateChatCompletionMethod;
  }

  private static volatile io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest,
      io.lmchat.v1.ChatCompletionChunk> getStreamChatCompletionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "StreamChatCompletion",
      requestType = io.lmchat.v1.ChatCompletionRequest.class,
      responseType = io.lmchat.v1.ChatCompletionChunk.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest,
      io.lmchat.v1.ChatCompletionChunk> getStreamChatCompletionMethod() {
    io.grpc.MethodDescriptor<io.lmchat.v1.ChatCompletionRequest, io.lmchat.v1.ChatCompletionChunk> getStreamChatCompletionMethod;
    if ((getStreamChatCompletionMethod = ChatCompletionsGrpc.getStreamChatCompletionMethod) == null) {
      synchronized (ChatCompletionsGrpc.class) {
        if ((getStreamChatCompletionMethod = ChatCompletionsGrpc.getStreamChatCompletionMethod) == null) {
          ChatCompletionsGrpc.getStreamChatCompletionMethod = getStreamChatCompletionMethod =
              io.grpc.MethodDescriptor.<io.lmchat.v1.ChatCompletionRequest, io.lmchat.v1.ChatCompletionChunk>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "StreamChatCompletion"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ChatCompletionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ChatCompletionChunk.getDefaultInstance()))
              .setSchemaDescriptor(new ChatCompletionsMethodDescriptorSupplier("StreamChatCompletion"))
              .build();
        }
      }
    }
    return getStreamChatCompletionMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static ChatCompletionsStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsStub>() {
        @java.lang.Override
        public ChatCompletionsStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ChatCompletionsStub(channel, callOptions);
        }
      };
    return ChatCompletionsStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static ChatCompletionsBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsBlockingV2Stub>() {
        @java.lang.Override
        public ChatCompletionsBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ChatCompletionsBlockingV2Stub(channel, callOptions);
        }
      };
    return ChatCompletionsBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static ChatCompletionsBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsBlockingStub>() {
        @java.lang.Override
        public ChatCompletionsBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ChatCompletionsBlockingStub(channel, callOptions);
        }
      };
    return ChatCompletionsBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static ChatCompletionsFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ChatCompletionsFutureStub>() {
        @java.lang.Override
        public ChatCompletionsFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ChatCompletionsFutureStub(channel, callOptions);
        }
      };
    return ChatCompletionsFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * The whole completion as one message.
     * </pre>
     */
    default void createChatCompletion(io.lmchat.v1.ChatCompletionRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletion> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCreateChatCompletionMethod(), responseObserver);
    }

    /**
     * <pre>
     * The completion in chunks, as it is generated. A stream that ends with status OK is
     * complete: each choice had exactly one finish_reason.
     * </pre>
     */
    default void streamChatCompletion(io.lmchat.v1.ChatCompletionRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletionChunk> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getStreamChatCompletionMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service ChatCompletions.
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public static abstract class ChatCompletionsImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return ChatCompletionsGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service ChatCompletions.
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public static final class ChatCompletionsStub
      extends io.grpc.stub.AbstractAsyncStub<ChatCompletionsStub> {
    private ChatCompletionsStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ChatCompletionsStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ChatCompletionsStub(channel, callOptions);
    }

    /**
     * <pre>
     * The whole completion as one message.
     * </pre>
     */
    public void createChatCompletion(io.lmchat.v1.ChatCompletionRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletion> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCreateChatCompletionMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The completion in chunks, as it is generated. A stream that ends with status OK is
     * complete: each choice had exactly one finish_reason.
     * </pre>
     */
    public void streamChatCompletion(io.lmchat.v1.ChatCompletionRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletionChunk> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getStreamChatCompletionMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service ChatCompletions.
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public static final class ChatCompletionsBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<ChatCompletionsBlockingV2Stub> {
    private ChatCompletionsBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ChatCompletionsBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ChatCompletionsBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * The whole completion as one message.
     * </pre>
     */
    public io.lmchat.v1.ChatCompletion createChatCompletion(io.lmchat.v1.ChatCompletionRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCreateChatCompletionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The completion in chunks, as it is generated. A stream that ends with status OK is
     * complete: each choice had exactly one finish_reason.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, io.lmchat.v1.ChatCompletionChunk>
        streamChatCompletion(io.lmchat.v1.ChatCompletionRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getStreamChatCompletionMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service ChatCompletions.
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public static final class ChatCompletionsBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<ChatCompletionsBlockingStub> {
    private ChatCompletionsBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ChatCompletionsBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ChatCompletionsBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * The whole completion as one message.
     * </pre>
     */
    public io.lmchat.v1.ChatCompletion createChatCompletion(io.lmchat.v1.ChatCompletionRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCreateChatCompletionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The completion in chunks, as it is generated. A stream that ends with status OK is
     * complete: each choice had exactly one finish_reason.
     * </pre>
     */
    public java.util.Iterator<io.lmchat.v1.ChatCompletionChunk> streamChatCompletion(
        io.lmchat.v1.ChatCompletionRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getStreamChatCompletionMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service ChatCompletions.
   * <pre>
   * Chat completions over gRPC. Both calls take the same request.
   * Errors are google.rpc.Status with an ErrorInfo (domain `lmchat`, reason from
   * ErrorReason) and, where it applies, BadRequest and RetryInfo.
   * </pre>
   */
  public static final class ChatCompletionsFutureStub
      extends io.grpc.stub.AbstractFutureStub<ChatCompletionsFutureStub> {
    private ChatCompletionsFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ChatCompletionsFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ChatCompletionsFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * The whole completion as one message.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.lmchat.v1.ChatCompletion> createChatCompletion(
        io.lmchat.v1.ChatCompletionRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCreateChatCompletionMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_CREATE_CHAT_COMPLETION = 0;
  private static final int METHODID_STREAM_CHAT_COMPLETION = 1;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_CREATE_CHAT_COMPLETION:
          serviceImpl.createChatCompletion((io.lmchat.v1.ChatCompletionRequest) request,
              (io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletion>) responseObserver);
          break;
        case METHODID_STREAM_CHAT_COMPLETION:
          serviceImpl.streamChatCompletion((io.lmchat.v1.ChatCompletionRequest) request,
              (io.grpc.stub.StreamObserver<io.lmchat.v1.ChatCompletionChunk>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getCreateChatCompletionMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.lmchat.v1.ChatCompletionRequest,
              io.lmchat.v1.ChatCompletion>(
                service, METHODID_CREATE_CHAT_COMPLETION)))
        .addMethod(
          getStreamChatCompletionMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              io.lmchat.v1.ChatCompletionRequest,
              io.lmchat.v1.ChatCompletionChunk>(
                service, METHODID_STREAM_CHAT_COMPLETION)))
        .build();
  }

  private static abstract class ChatCompletionsBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    ChatCompletionsBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return io.lmchat.v1.ChatServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("ChatCompletions");
    }
  }

  private static final class ChatCompletionsFileDescriptorSupplier
      extends ChatCompletionsBaseDescriptorSupplier {
    ChatCompletionsFileDescriptorSupplier() {}
  }

  private static final class ChatCompletionsMethodDescriptorSupplier
      extends ChatCompletionsBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    ChatCompletionsMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (ChatCompletionsGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new ChatCompletionsFileDescriptorSupplier())
              .addMethod(getCreateChatCompletionMethod())
              .addMethod(getStreamChatCompletionMethod())
              .build();
        }
      }
    }
    return result;
  }
}
