// Package main has a client of lmchat over gRPC, a model to copy: a connection with keepalive and retries, streams
// that fold into a completion (fold.go), and errors with the details of google.rpc.Status (errors.go).
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	pb "lmchat/v1"
)

// maxMessage is the size of the largest completion, in bytes; gRPC's own limit is 4 MiB.
const maxMessage = 64 << 20

// UNAVAILABLE means that no content had left: the call may be repeated, also a stream before its first chunk.
const serviceConfig = `{
  "methodConfig": [{
    "name": [{"service": "lmchat.v1.ChatCompletions"}, {"service": "lmchat.v1.Models"}],
    "retryPolicy": {
      "maxAttempts": 3,
      "initialBackoff": "0.1s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// bearerToken sends the key with every call.
type bearerToken string

func (key bearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if key == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

// RequireTransportSecurity is true in production, where the connection is encrypted.
func (bearerToken) RequireTransportSecurity() bool { return false }

// Client has the calls of one gateway over one connection, which goroutines may share. Deadlines and cancellation
// are the context's; errors are *ChatError.
type Client struct {
	conn   *grpc.ClientConn
	chat   pb.ChatCompletionsClient
	models pb.ModelsClient
}

// NewClient makes a client; it connects with its first call.
func NewClient(address, key string) (*Client, error) {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearerToken(key)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, err
	}
	return &Client{conn, pb.NewChatCompletionsClient(conn), pb.NewModelsClient(conn)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Complete returns the whole completion.
func (c *Client) Complete(ctx context.Context, request *pb.ChatCompletionRequest) (*pb.ChatCompletion, error) {
	completion, err := c.chat.CreateChatCompletion(ctx, request)
	return completion, chatError(err)
}

// Stream yields the chunks of a completion as they arrive. The last pair has the error if the stream fails or breaks.
// Leaving the loop ends the call, and the gateway closes that of the provider.
func (c *Client) Stream(ctx context.Context, request *pb.ChatCompletionRequest) iter.Seq2[*pb.ChatCompletionChunk, error] {
	return func(yield func(*pb.ChatCompletionChunk, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.chat.StreamChatCompletion(ctx, request)
		for err == nil {
			var chunk *pb.ChatCompletionChunk
			if chunk, err = stream.Recv(); err == nil && !yield(chunk, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(nil, chatError(err))
		}
	}
}

// Model returns one model of the catalogue.
func (c *Client) Model(ctx context.Context, id string) (*pb.Model, error) {
	model, err := c.models.GetModel(ctx, &pb.GetModelRequest{Model: id})
	return model, chatError(err)
}
