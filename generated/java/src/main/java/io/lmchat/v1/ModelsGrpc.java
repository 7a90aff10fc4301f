package io.lmchat.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * The model catalogue.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class ModelsGrpc {

  private ModelsGrpc() {}

  public static final java.lang.String SERVICE_NAME = "lmchat.v1.Models";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<io.lmchat.v1.ListModelsRequest,
      io.lmchat.v1.ListModelsResponse> getListModelsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListModels",
      requestType = io.lmchat.v1.ListModelsRequest.class,
      responseType = io.lmchat.v1.ListModelsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.lmchat.v1.ListModelsRequest,
      io.lmchat.v1.ListModelsResponse> getListModelsMethod() {
    io.grpc.MethodDescriptor<io.lmchat.v1.ListModelsRequest, io.lmchat.v1.ListModelsResponse> getListModelsMethod;
    if ((getListModelsMethod = ModelsGrpc.getListModelsMethod) == null) {
      synchronized (ModelsGrpc.class) {
        if ((getListModelsMethod = ModelsGrpc.getListModelsMethod) == null) {
          ModelsGrpc.getListModelsMethod = getListModelsMethod =
              io.grpc.MethodDescriptor.<io.lmchat.v1.ListModelsRequest, io.lmchat.v1.ListModelsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListModels"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ListModelsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.ListModelsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new ModelsMethodDescriptorSupplier("ListModels"))
              .build();
        }
      }
    }
    return getListModelsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<io.lmchat.v1.GetModelRequest,
      io.lmchat.v1.Model> getGetModelMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetModel",
      requestType = io.lmchat.v1.GetModelRequest.class,
      responseType = io.lmchat.v1.Model.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<io.lmchat.v1.GetModelRequest,
      io.lmchat.v1.Model> getGetModelMethod() {
    io.grpc.MethodDescriptor<io.lmchat.v1.GetModelRequest, io.lmchat.v1.Model> getGetModelMethod;
    if ((getGetModelMethod = ModelsGrpc.getGetModelMethod) == null) {
      synchronized (ModelsGrpc.class) {
        if ((getGetModelMethod = ModelsGrpc.getGetModelMethod) == null) {
          ModelsGrpc.getGetModelMethod = getGetModelMethod =
              io.grpc.MethodDescriptor.<io.lmchat.v1.GetModelRequest, io.lmchat.v1.Model>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetModel"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.GetModelRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  io.lmchat.v1.Model.getDefaultInstance()))
              .setSchemaDescriptor(new ModelsMethodDescriptorSupplier("GetModel"))
              .build();
        }
      }
    }
    return getGetModelMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static ModelsStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ModelsStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ModelsStub>() {
        @java.lang.Override
        public ModelsStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ModelsStub(channel, callOptions);
        }
      };
    return ModelsStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static ModelsBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ModelsBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ModelsBlockingV2Stub>() {
        @java.lang.Override
        public ModelsBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ModelsBlockingV2Stub(channel, callOptions);
        }
      };
    return ModelsBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static ModelsBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ModelsBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ModelsBlockingStub>() {
        @java.lang.Override
        public ModelsBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ModelsBlockingStub(channel, callOptions);
        }
      };
    return ModelsBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static ModelsFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<ModelsFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<ModelsFutureStub>() {
        @java.lang.Override
        public ModelsFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new ModelsFutureStub(channel, callOptions);
        }
      };
    return ModelsFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Every model of the catalogue, wildcards included.
     * </pre>
     */
    default void listModels(io.lmchat.v1.ListModelsRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ListModelsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListModelsMethod(), responseObserver);
    }

    /**
     * <pre>
     * One model, by id, alias, or an id that matches a wildcard.
     * </pre>
     */
    default void getModel(io.lmchat.v1.GetModelRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.Model> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetModelMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service Models.
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public static abstract class ModelsImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return ModelsGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service Models.
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public static final class ModelsStub
      extends io.grpc.stub.AbstractAsyncStub<ModelsStub> {
    private ModelsStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ModelsStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ModelsStub(channel, callOptions);
    }

    /**
     * <pre>
     * Every model of the catalogue, wildcards included.
     * </pre>
     */
    public void listModels(io.lmchat.v1.ListModelsRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.ListModelsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListModelsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * One model, by id, alias, or an id that matches a wildcard.
     * </pre>
     */
    public void getModel(io.lmchat.v1.GetModelRequest request,
        io.grpc.stub.StreamObserver<io.lmchat.v1.Model> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetModelMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service Models.
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public static final class ModelsBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<ModelsBlockingV2Stub> {
    private ModelsBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ModelsBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ModelsBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Every model of the catalogue, wildcards included.
     * </pre>
     */
    public io.lmchat.v1.ListModelsResponse listModels(io.lmchat.v1.ListModelsRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListModelsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * One model, by id, alias, or an id that matches a wildcard.
     * </pre>
     */
    public io.lmchat.v1.Model getModel(io.lmchat.v1.GetModelRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetModelMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service Models.
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public static final class ModelsBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<ModelsBlockingStub> {
    private ModelsBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ModelsBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ModelsBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * Every model of the catalogue, wildcards included.
     * </pre>
     */
    public io.lmchat.v1.ListModelsResponse listModels(io.lmchat.v1.ListModelsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListModelsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * One model, by id, alias, or an id that matches a wildcard.
     * </pre>
     */
    public io.lmchat.v1.Model getModel(io.lmchat.v1.GetModelRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetModelMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service Models.
   * <pre>
   * The model catalogue.
   * </pre>
   */
  public static final class ModelsFutureStub
      extends io.grpc.stub.AbstractFutureStub<ModelsFutureStub> {
    private ModelsFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected ModelsFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new ModelsFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * Every model of the catalogue, wildcards included.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.lmchat.v1.ListModelsResponse> listModels(
        io.lmchat.v1.ListModelsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListModelsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * One model, by id, alias, or an id that matches a wildcard.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<io.lmchat.v1.Model> getModel(
        io.lmchat.v1.GetModelRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetModelMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_LIST_MODELS = 0;
  private static final int METHODID_GET_MODEL = 1;

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
        case METHODID_LIST_MODELS:
          serviceImpl.listModels((io.lmchat.v1.ListModelsRequest) request,
              (io.grpc.stub.StreamObserver<io.lmchat.v1.ListModelsResponse>) responseObserver);
          break;
        case METHODID_GET_MODEL:
          serviceImpl.getModel((io.lmchat.v1.GetModelRequest) request,
              (io.grpc.stub.StreamObserver<io.lmchat.v1.Model>) responseObserver);
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
          getListModelsMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.lmchat.v1.ListModelsRequest,
              io.lmchat.v1.ListModelsResponse>(
                service, METHODID_LIST_MODELS)))
        .addMethod(
          getGetModelMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              io.lmchat.v1.GetModelRequest,
              io.lmchat.v1.Model>(
                service, METHODID_GET_MODEL)))
        .build();
  }

  private static abstract class ModelsBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    ModelsBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return io.lmchat.v1.ModelServiceProto.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("Models");
    }
  }

  private static final class ModelsFileDescriptorSupplier
      extends ModelsBaseDescriptorSupplier {
    ModelsFileDescriptorSupplier() {}
  }

  private static final class ModelsMethodDescriptorSupplier
      extends ModelsBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    ModelsMethodDescriptorSupplier(java.lang.String methodName) {
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
      synchronized (ModelsGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new ModelsFileDescriptorSupplier())
              .addMethod(getListModelsMethod())
              .addMethod(getGetModelMethod())
              .build();
        }
      }
    }
    return result;
  }
}
