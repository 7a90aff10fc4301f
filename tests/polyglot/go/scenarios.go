package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	pb "lmchat/v1"
)

const (
	png           = "\x89PNG\r\n\x1a\n"
	weatherSchema = `{"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}`
	citySchema    = `{
  "type": "object",
  "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
  "required": ["city", "country"],
  "additionalProperties": false
}`
)

// City is what `citySchema` describes.
type City struct {
	City    string `json:"city"`
	Country string `json:"country"`
}

// A scenario's result is printed as `done`.
type scenario func(ctx context.Context, client *Client, model string) (any, error)

var scenarios = map[string]scenario{
	"unary":                unary,
	"stream":               stream,
	"first_token":          stream,
	"reasoning":            stream,
	"refusal":              stream,
	"stop_sequence":        stopSequence,
	"two_choices":          twoChoices,
	"tool_calls":           toolCalls,
	"tools_two_turns":      toolsTwoTurns,
	"structured_output":    structuredOutput,
	"image":                image,
	"large_completion":     largeCompletion,
	"fallback":             fallback,
	"retry":                unary,
	"retry_stream":         stream,
	"upstream_error":       unary,
	"model":                getModel,
	"invalid_field":        invalidField,
	"invalid_field_stream": invalidFieldStream,
	"missing_key":          unary,
	"wrong_key":            unary,
	"unknown_model":        unary,
	"rate_limited":         unary,
	"context_length":       unary,
	"broken_stream":        stream,
	"deadline":             deadline,
	"deadline_stream":      deadlineStream,
	"unreachable":          unary,
	"cancel":               cancelled,
	"leave":                leave,
}

func ask(model string, parts ...*pb.ContentPart) *pb.ChatCompletionRequest {
	return &pb.ChatCompletionRequest{
		Model:         model,
		Messages:      []*pb.Message{{Role: pb.Role_ROLE_USER, Content: parts}},
		StreamOptions: &pb.StreamOptions{IncludeUsage: proto.Bool(true)},
	}
}

func hello(model string) *pb.ChatCompletionRequest { return ask(model, Text("Hello")) }

func summary(completion *pb.ChatCompletion) object {
	choices := []object{}
	for _, choice := range completion.GetChoices() {
		calls := []object{}
		for _, call := range choice.GetMessage().GetToolCalls() {
			function := call.GetFunction()
			calls = append(calls, object{
				"id": call.GetId(), "name": function.GetName(), "arguments": function.GetArguments(),
			})
		}
		choices = append(choices, object{
			"content":       MessageText(choice.GetMessage()),
			"reasoning":     choice.GetMessage().GetReasoningContent(),
			"refusal":       choice.GetMessage().GetRefusal(),
			"tool_calls":    calls,
			"finish_reason": choice.GetFinishReason().String(),
			"stop_sequence": choice.GetStopSequence(),
		})
	}
	return object{
		"choices":      choices,
		"total_tokens": completion.GetUsage().GetTotalTokens(),
		"provider":     completion.GetLmchat().GetProvider(),
	}
}

func complete(ctx context.Context, client *Client, request *pb.ChatCompletionRequest) (any, error) {
	completion, err := client.Complete(ctx, request)
	return summary(completion), err
}

func printTokens(ctx context.Context, client *Client, request *pb.ChatCompletionRequest) (any, error) {
	completion, err := Fold(client.Stream(ctx, request), token)
	return summary(completion), err
}

func unary(ctx context.Context, client *Client, model string) (any, error) {
	return complete(ctx, client, hello(model))
}

func stream(ctx context.Context, client *Client, model string) (any, error) {
	return printTokens(ctx, client, hello(model))
}

func stopSequence(ctx context.Context, client *Client, model string) (any, error) {
	request := hello(model)
	request.Stop = []string{"END"}
	return printTokens(ctx, client, request)
}

func twoChoices(ctx context.Context, client *Client, model string) (any, error) {
	request := hello(model)
	request.N = proto.Int32(2)
	return printTokens(ctx, client, request)
}

func withTools(model string) *pb.ChatCompletionRequest {
	request := hello(model)
	weather := &pb.FunctionDefinition{Name: "weather", ParametersJson: proto.String(weatherSchema)}
	request.Tools = []*pb.Tool{{Tool: &pb.Tool_Function{Function: weather}}}
	return request
}

func toolCalls(ctx context.Context, client *Client, model string) (any, error) {
	return printTokens(ctx, client, withTools(model))
}

func weather(arguments string) (string, error) {
	var parsed struct{ City string }
	err := json.Unmarshal([]byte(arguments), &parsed)
	return "18 degrees in " + parsed.City, err
}

func toolsTwoTurns(ctx context.Context, client *Client, model string) (any, error) {
	request := withTools(model)
	for {
		completion, err := Fold(client.Stream(ctx, request), token)
		if err != nil {
			return nil, err
		}
		message := completion.GetChoices()[0].GetMessage()
		if len(message.GetToolCalls()) == 0 {
			return summary(completion), nil
		}
		request.Messages = append(request.Messages, message)
		for _, call := range message.GetToolCalls() {
			result, err := weather(call.GetFunction().GetArguments())
			if err != nil {
				return nil, err
			}
			request.Messages = append(request.Messages, &pb.Message{
				Role: pb.Role_ROLE_TOOL, ToolCallId: proto.String(call.GetId()), Content: []*pb.ContentPart{Text(result)},
			})
		}
	}
}

func structuredOutput(ctx context.Context, client *Client, model string) (any, error) {
	schema := &pb.JsonSchemaFormat{Name: "city", SchemaJson: proto.String(citySchema), Strict: proto.Bool(true)}
	request := hello(model)
	request.ResponseFormat = &pb.ResponseFormat{Format: &pb.ResponseFormat_JsonSchema{JsonSchema: schema}}
	completion, err := client.Complete(ctx, request)
	if err != nil {
		return nil, err
	}
	var city City
	err = json.Unmarshal([]byte(MessageText(completion.GetChoices()[0].GetMessage())), &city)
	return city, err
}

func image(ctx context.Context, client *Client, model string) (any, error) {
	url := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(png))
	picture := &pb.ContentPart{Part: &pb.ContentPart_ImageUrl{ImageUrl: &pb.ImageUrl{Url: url}}}
	return complete(ctx, client, ask(model, Text("What is this?"), picture))
}

func largeCompletion(ctx context.Context, client *Client, model string) (any, error) {
	completion, err := client.Complete(ctx, hello(model))
	if err != nil {
		return nil, err
	}
	return object{"characters": len(MessageText(completion.GetChoices()[0].GetMessage()))}, nil
}

func fallback(ctx context.Context, client *Client, model string) (any, error) {
	request := hello(model)
	request.Lmchat = &pb.RequestOptions{Routing: &pb.Routing{MaxProviderTries: proto.Int32(2)}}
	return complete(ctx, client, request)
}

func getModel(ctx context.Context, client *Client, model string) (any, error) {
	found, err := client.Model(ctx, model)
	return object{"id": found.GetId(), "context_length": found.GetLmchat().GetContextLength()}, err
}

func invalidField(ctx context.Context, client *Client, model string) (any, error) {
	request := hello(model)
	request.Temperature = proto.Float64(9)
	return complete(ctx, client, request)
}

func invalidFieldStream(ctx context.Context, client *Client, model string) (any, error) {
	request := hello(model)
	request.Temperature = proto.Float64(9)
	return printTokens(ctx, client, request)
}

func deadline(ctx context.Context, client *Client, model string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return complete(ctx, client, hello(model))
}

func deadlineStream(ctx context.Context, client *Client, model string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return printTokens(ctx, client, hello(model))
}

func cancelled(ctx context.Context, client *Client, model string) (any, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, err := Fold(client.Stream(ctx, hello(model)), func(text string) {
		token(text)
		cancel()
	})
	var failed *ChatError
	return object{"cancelled": errors.As(err, &failed) && failed.Code == codes.Canceled}, nil
}

func leave(ctx context.Context, client *Client, model string) (any, error) {
	for chunk, err := range client.Stream(ctx, hello(model)) {
		if err != nil {
			return nil, err
		}
		for _, choice := range chunk.GetChoices() {
			if text := choice.GetDelta().GetContent(); text != "" {
				token(text)
				return object{"left": true}, nil
			}
		}
	}
	return object{"left": false}, nil
}
