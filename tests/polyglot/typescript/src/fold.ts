import { create } from "@bufbuild/protobuf";
import {
  type ChatCompletion,
  type ChatCompletionChunk,
  ChatCompletionSchema,
  ChoiceSchema,
  ContentPartSchema,
  CustomToolCallSchema,
  type Delta,
  FinishReason,
  FunctionCallSchema,
  type Message,
  MessageSchema,
  Role,
  type ToolCall,
  type ToolCallDelta,
  ToolCallSchema,
} from "lmchat-client/lmchat/v1/chat_pb";

/** The completion that the chunks of a stream add up to; `token` gets each content as it arrives. */
export async function fold(
  chunks: AsyncIterable<ChatCompletionChunk>,
  token: (text: string) => void = () => {},
): Promise<ChatCompletion> {
  const completion = create(ChatCompletionSchema);
  for await (const chunk of chunks) {
    add(completion, chunk);
    for (const { delta } of chunk.choices) if (delta?.content) token(delta.content);
  }
  return completion;
}

/** Adds one chunk to a completion. Log probabilities and audio are left out. */
export function add(completion: ChatCompletion, chunk: ChatCompletionChunk): void {
  completion.id = chunk.id;
  completion.created = chunk.created;
  completion.model = chunk.model;
  if (chunk.usage) completion.usage = chunk.usage;
  if (chunk.lmchat) completion.lmchat = chunk.lmchat;
  for (const piece of chunk.choices) {
    for (let index = completion.choices.length; index <= piece.index; index++)
      completion.choices.push(create(ChoiceSchema, { index, message: { role: Role.ASSISTANT } }));
    const choice = completion.choices[piece.index]!;
    if (piece.finishReason !== FinishReason.UNSPECIFIED) choice.finishReason = piece.finishReason;
    if (piece.stopSequence !== undefined) choice.stopSequence = piece.stopSequence;
    if (piece.delta) addDelta((choice.message ??= create(MessageSchema)), piece.delta);
  }
}

function addDelta(message: Message, delta: Delta): void {
  if (delta.content) {
    const part = message.content[0]?.part;
    if (part?.case === "text") part.value += delta.content;
    else message.content.push(create(ContentPartSchema, { part: { case: "text", value: delta.content } }));
  }
  if (delta.refusal) message.refusal = (message.refusal ?? "") + delta.refusal;
  if (delta.reasoningContent) message.reasoningContent = (message.reasoningContent ?? "") + delta.reasoningContent;
  message.reasoningDetails.push(...delta.reasoningDetails);
  message.annotations.push(...delta.annotations);
  for (const piece of delta.toolCalls) {
    while (message.toolCalls.length <= piece.index) message.toolCalls.push(create(ToolCallSchema));
    addToolCall(message.toolCalls[piece.index]!, piece);
  }
}

function addToolCall(whole: ToolCall, piece: ToolCallDelta): void {
  whole.id += piece.id ?? "";
  whole.extraJson = piece.extraJson || whole.extraJson;
  if (piece.call.case === "function") {
    if (whole.call.case !== "function") whole.call = { case: "function", value: create(FunctionCallSchema) };
    whole.call.value.name += piece.call.value.name;
    whole.call.value.arguments += piece.call.value.arguments;
  } else if (piece.call.case === "custom") {
    if (whole.call.case !== "custom") whole.call = { case: "custom", value: create(CustomToolCallSchema) };
    whole.call.value.name += piece.call.value.name;
    whole.call.value.input += piece.call.value.input;
  }
}

/** The text of a message. */
export function text(message: Message | undefined): string {
  return (message?.content ?? []).map(({ part }) => (part.case === "text" ? part.value : "")).join("");
}
