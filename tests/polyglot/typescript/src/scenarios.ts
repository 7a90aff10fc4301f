import { type ChatCompletion, FinishReason, Role, type Message } from "lmchat-client/lmchat/v1/chat_pb";
import type { ChatClient, Request } from "./client.js";
import { ChatError } from "./errors.js";
import { fold, text } from "./fold.js";

/** What a scenario gives is printed as `done`. */
type Scenario = (client: ChatClient, model: string) => Promise<object>;

export function show(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const token = (token: string) => show({ token });

const PNG = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");

function ask(model: string, ...parts: NonNullable<NonNullable<Request["messages"]>[number]["content"]>): Request {
  return { model, messages: [{ role: Role.USER, content: parts }], streamOptions: { includeUsage: true } };
}

const hello = (model: string): Request => ask(model, { part: { case: "text", value: "Hello" } });

function summary(completion: ChatCompletion): object {
  const choices = completion.choices.map(({ message, finishReason, stopSequence }) => ({
    content: text(message),
    reasoning: message?.reasoningContent ?? "",
    refusal: message?.refusal ?? "",
    tool_calls: functionCalls(message),
    finish_reason: `FINISH_REASON_${FinishReason[finishReason]}`,
    stop_sequence: stopSequence ?? "",
  }));
  return {
    choices,
    total_tokens: Number(completion.usage?.totalTokens ?? 0),
    provider: completion.lmchat?.provider ?? "",
  };
}

function functionCalls(message: Message | undefined) {
  return (message?.toolCalls ?? []).flatMap(({ id, call }) =>
    call.case === "function" ? [{ id, name: call.value.name, arguments: call.value.arguments }] : [],
  );
}

const unary: Scenario = async (client, model) => summary(await client.complete(hello(model)));

const stream: Scenario = async (client, model) => summary(await fold(client.stream(hello(model)), token));

const stopSequence: Scenario = async (client, model) =>
  summary(await fold(client.stream({ ...hello(model), stop: ["END"] }), token));

const twoChoices: Scenario = async (client, model) =>
  summary(await fold(client.stream({ ...hello(model), n: 2 }), token));

const WEATHER_SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

function withTools(model: string): Request {
  const weather = { name: "weather", parametersJson: JSON.stringify(WEATHER_SCHEMA) };
  return { ...hello(model), tools: [{ tool: { case: "function", value: weather } }] };
}

const weather = ({ city }: { city: string }) => `18 degrees in ${city}`;

const toolCalls: Scenario = async (client, model) => summary(await fold(client.stream(withTools(model)), token));

const toolsTwoTurns: Scenario = async (client, model) => {
  const request = withTools(model);
  const messages = [...(request.messages ?? [])];
  for (;;) {
    const completion = await fold(client.stream({ ...request, messages }), token);
    const message = completion.choices[0]!.message!;
    const calls = functionCalls(message);
    if (calls.length === 0) return summary(completion);
    messages.push(message);
    for (const call of calls) {
      const value = weather(JSON.parse(call.arguments));
      messages.push({ role: Role.TOOL, toolCallId: call.id, content: [{ part: { case: "text", value } }] });
    }
  }
};

type City = { city: string; country: string };

const CITY_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, country: { type: "string" } },
  required: ["city", "country"],
  additionalProperties: false,
};

const structuredOutput: Scenario = async (client, model) => {
  const value = { name: "city", schemaJson: JSON.stringify(CITY_SCHEMA), strict: true };
  const request = { ...hello(model), responseFormat: { format: { case: "jsonSchema" as const, value } } };
  const { city, country }: City = JSON.parse(text((await client.complete(request)).choices[0]?.message));
  return { city, country };
};

const image: Scenario = async (client, model) => {
  const url = `data:image/png;base64,${PNG.toString("base64")}`;
  const question = { part: { case: "text" as const, value: "What is this?" } };
  const picture = { part: { case: "imageUrl" as const, value: { url } } };
  return summary(await client.complete(ask(model, question, picture)));
};

const largeCompletion: Scenario = async (client, model) => ({
  characters: text((await client.complete(hello(model))).choices[0]?.message).length,
});

const fallback: Scenario = async (client, model) =>
  summary(await client.complete({ ...hello(model), lmchat: { routing: { maxProviderTries: 2 } } }));

const getModel: Scenario = async (client, model) => {
  const { id, lmchat } = await client.model(model);
  return { id, context_length: Number(lmchat?.contextLength) };
};

const invalidField: Scenario = async (client, model) =>
  summary(await client.complete({ ...hello(model), temperature: 9 }));

const invalidFieldStream: Scenario = async (client, model) =>
  summary(await fold(client.stream({ ...hello(model), temperature: 9 }), token));

const deadline: Scenario = async (client, model) =>
  summary(await client.complete(hello(model), { timeoutMs: 500 }));

const deadlineStream: Scenario = async (client, model) =>
  summary(await fold(client.stream(hello(model), { timeoutMs: 500 }), token));

const cancel: Scenario = async (client, model) => {
  const controller = new AbortController();
  try {
    await fold(client.stream(hello(model), { signal: controller.signal }), (text) => {
      token(text);
      controller.abort();
    });
  } catch (error) {
    return { cancelled: error instanceof ChatError && error.code === "CANCELLED" };
  }
  return { cancelled: false };
};

const leave: Scenario = async (client, model) => {
  for await (const { choices } of client.stream(hello(model)))
    for (const { delta } of choices)
      if (delta?.content) {
        token(delta.content);
        return { left: true };
      }
  return { left: false };
};

export const scenarios: Readonly<Record<string, Scenario>> = {
  unary,
  stream,
  first_token: stream,
  reasoning: stream,
  refusal: stream,
  stop_sequence: stopSequence,
  two_choices: twoChoices,
  tool_calls: toolCalls,
  tools_two_turns: toolsTwoTurns,
  structured_output: structuredOutput,
  image,
  large_completion: largeCompletion,
  fallback,
  retry: unary,
  retry_stream: stream,
  upstream_error: unary,
  model: getModel,
  invalid_field: invalidField,
  invalid_field_stream: invalidFieldStream,
  missing_key: unary,
  wrong_key: unary,
  unknown_model: unary,
  rate_limited: unary,
  context_length: unary,
  broken_stream: stream,
  deadline,
  deadline_stream: deadlineStream,
  unreachable: unary,
  cancel,
  leave,
};
