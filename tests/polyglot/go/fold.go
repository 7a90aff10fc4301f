package main

import (
	"iter"

	"google.golang.org/protobuf/proto"
	pb "lmchat/v1"
)

// Fold returns the completion that the chunks of a stream add up to, and hands on each content as it arrives.
func Fold(chunks iter.Seq2[*pb.ChatCompletionChunk, error], token func(string)) (*pb.ChatCompletion, error) {
	completion := &pb.ChatCompletion{}
	for chunk, err := range chunks {
		if err != nil {
			return nil, err
		}
		Add(completion, chunk)
		for _, choice := range chunk.GetChoices() {
			if text := choice.GetDelta().GetContent(); text != "" {
				token(text)
			}
		}
	}
	return completion, nil
}

// Add adds one chunk to a completion. Log probabilities and audio are left out.
func Add(completion *pb.ChatCompletion, chunk *pb.ChatCompletionChunk) {
	completion.Id, completion.Created, completion.Model = chunk.GetId(), chunk.GetCreated(), chunk.GetModel()
	if chunk.GetUsage() != nil {
		completion.Usage = chunk.GetUsage()
	}
	if chunk.GetLmchat() != nil {
		completion.Lmchat = chunk.GetLmchat()
	}
	for _, piece := range chunk.GetChoices() {
		for len(completion.Choices) <= int(piece.GetIndex()) {
			completion.Choices = append(completion.Choices, &pb.Choice{
				Index:   int32(len(completion.Choices)),
				Message: &pb.Message{Role: pb.Role_ROLE_ASSISTANT},
			})
		}
		choice := completion.Choices[piece.GetIndex()]
		if piece.GetFinishReason() != pb.FinishReason_FINISH_REASON_UNSPECIFIED {
			choice.FinishReason = piece.GetFinishReason()
		}
		if piece.StopSequence != nil {
			choice.StopSequence = piece.StopSequence
		}
		addDelta(choice.Message, piece.GetDelta())
	}
}

func addDelta(message *pb.Message, delta *pb.Delta) {
	if delta.GetContent() != "" {
		if len(message.Content) == 0 {
			message.Content = []*pb.ContentPart{Text("")}
		}
		message.Content[0].Part.(*pb.ContentPart_Text).Text += delta.GetContent()
	}
	if delta.GetRefusal() != "" {
		message.Refusal = proto.String(message.GetRefusal() + delta.GetRefusal())
	}
	if delta.GetReasoningContent() != "" {
		message.ReasoningContent = proto.String(message.GetReasoningContent() + delta.GetReasoningContent())
	}
	message.ReasoningDetails = append(message.ReasoningDetails, delta.GetReasoningDetails()...)
	message.Annotations = append(message.Annotations, delta.GetAnnotations()...)
	for _, piece := range delta.GetToolCalls() {
		for len(message.ToolCalls) <= int(piece.GetIndex()) {
			message.ToolCalls = append(message.ToolCalls, &pb.ToolCall{})
		}
		addToolCall(message.ToolCalls[piece.GetIndex()], piece)
	}
}

func addToolCall(call *pb.ToolCall, piece *pb.ToolCallDelta) {
	call.Id += piece.GetId()
	if piece.GetExtraJson() != "" {
		call.ExtraJson = piece.GetExtraJson()
	}
	switch piece := piece.GetCall().(type) {
	case *pb.ToolCallDelta_Function:
		if call.Call == nil {
			call.Call = &pb.ToolCall_Function{Function: &pb.FunctionCall{}}
		}
		function := call.GetFunction()
		function.Name += piece.Function.GetName()
		function.Arguments += piece.Function.GetArguments()
	case *pb.ToolCallDelta_Custom:
		if call.Call == nil {
			call.Call = &pb.ToolCall_Custom{Custom: &pb.CustomToolCall{}}
		}
		custom := call.GetCustom()
		custom.Name += piece.Custom.GetName()
		custom.Input += piece.Custom.GetInput()
	}
}

// Text is a text part.
func Text(text string) *pb.ContentPart {
	return &pb.ContentPart{Part: &pb.ContentPart_Text{Text: text}}
}

// MessageText is the text of a message.
func MessageText(message *pb.Message) string {
	text := ""
	for _, part := range message.GetContent() {
		text += part.GetText()
	}
	return text
}
