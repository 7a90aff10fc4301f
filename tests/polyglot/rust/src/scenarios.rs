//! The scenarios; the result of each is printed as `done`.

use std::error::Error;
use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use lmchat_client::v1::{
    content_part, response_format, tool, tool_call, ChatCompletion, ChatCompletionRequest, ContentPart,
    FunctionDefinition, ImageUrl, JsonSchemaFormat, Message, RequestOptions, ResponseFormat, Role, Routing,
    StreamOptions, Tool,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::client::{ChatClient, ChatStream, TIMEOUT};
use crate::fold::{fold, text, text_part};
use crate::show;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Runs one scenario.
pub async fn run(client: &ChatClient, name: &str) -> Result<Value> {
    let mut request = hello(name);
    match name {
        "unary" | "retry" | "upstream_error" | "missing_key" | "wrong_key" | "unknown_model" | "rate_limited"
        | "context_length" | "unreachable" => complete(client, &request).await,
        "stream" | "first_token" | "reasoning" | "refusal" | "retry_stream" | "broken_stream" => {
            stream(client, &request).await
        }
        "stop_sequence" => {
            request.stop = vec!["END".to_owned()];
            stream(client, &request).await
        }
        "two_choices" => {
            request.n = Some(2);
            stream(client, &request).await
        }
        "tool_calls" => {
            request.tools = vec![weather_tool()];
            stream(client, &request).await
        }
        "tools_two_turns" => tools_two_turns(client, request).await,
        "structured_output" => structured_output(client, request).await,
        "image" => image(client, name).await,
        "large_completion" => {
            let completion = client.complete(&request, TIMEOUT).await?;
            Ok(json!({ "characters": text(message(&completion)?).len() }))
        }
        "fallback" => {
            let routing = Routing {
                max_provider_tries: Some(2),
                ..Default::default()
            };
            request.lmchat = Some(RequestOptions {
                routing: Some(routing),
                ..Default::default()
            });
            complete(client, &request).await
        }
        "model" => {
            let model = client.model(name).await?;
            let details = model.lmchat.unwrap_or_default();
            Ok(json!({ "id": model.id, "context_length": details.context_length }))
        }
        "invalid_field" => {
            request.temperature = Some(9.0);
            complete(client, &request).await
        }
        "invalid_field_stream" => {
            request.temperature = Some(9.0);
            stream(client, &request).await
        }
        "deadline" => {
            let completion = client.complete(&request, Duration::from_millis(500)).await?;
            Ok(summary(&completion))
        }
        "deadline_stream" => {
            let stream = client.stream(&request, Duration::from_millis(500)).await?;
            Ok(summary(&print_tokens(stream).await?))
        }
        "cancel" => cancel(client.clone(), request).await,
        "leave" => leave(client, &request).await,
        _ => Err(format!("no scenario {name}").into()),
    }
}

fn ask(model: &str, content: Vec<ContentPart>) -> ChatCompletionRequest {
    ChatCompletionRequest {
        model: model.to_owned(),
        messages: vec![Message {
            role: Role::User.into(),
            content,
            ..Default::default()
        }],
        stream_options: Some(StreamOptions {
            include_usage: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn hello(model: &str) -> ChatCompletionRequest {
    ask(model, vec![text_part("Hello")])
}

fn message(completion: &ChatCompletion) -> Result<&Message> {
    let choice = completion.choices.first().ok_or("no choice")?;
    Ok(choice.message.as_ref().ok_or("no message")?)
}

fn summary(completion: &ChatCompletion) -> Value {
    let choices: Vec<Value> = completion
        .choices
        .iter()
        .map(|choice| {
            let message = choice.message.clone().unwrap_or_default();
            json!({
                "content": text(&message),
                "reasoning": message.reasoning_content(),
                "refusal": message.refusal(),
                "tool_calls": tool_calls(&message),
                "finish_reason": choice.finish_reason().as_str_name(),
                "stop_sequence": choice.stop_sequence(),
            })
        })
        .collect();
    json!({
        "choices": choices,
        "total_tokens": completion.usage.as_ref().map_or(0, |usage| usage.total_tokens),
        "provider": completion.lmchat.as_ref().map_or("", |report| &report.provider),
    })
}

#[derive(Serialize)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

fn tool_calls(message: &Message) -> Vec<Call> {
    let functions = message.tool_calls.iter().filter_map(|call| match &call.call {
        Some(tool_call::Call::Function(function)) => Some(Call {
            id: call.id.clone(),
            name: function.name.clone(),
            arguments: function.arguments.clone(),
        }),
        _ => None,
    });
    functions.collect()
}

async fn complete(client: &ChatClient, request: &ChatCompletionRequest) -> Result<Value> {
    Ok(summary(&client.complete(request, TIMEOUT).await?))
}

/// Prints the tokens as they arrive.
async fn print_tokens(chunks: ChatStream) -> Result<ChatCompletion> {
    Ok(fold(chunks, |token| show(json!({ "token": token }))).await?)
}

async fn stream(client: &ChatClient, request: &ChatCompletionRequest) -> Result<Value> {
    Ok(summary(&print_tokens(client.stream(request, TIMEOUT).await?).await?))
}

fn weather_tool() -> Tool {
    let schema = json!({
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    });
    let weather = FunctionDefinition {
        name: "weather".to_owned(),
        parameters_json: Some(schema.to_string()),
        ..Default::default()
    };
    Tool {
        tool: Some(tool::Tool::Function(weather)),
        ..Default::default()
    }
}

#[derive(Deserialize)]
struct WeatherArguments {
    city: String,
}

fn weather(arguments: &str) -> Result<String> {
    let WeatherArguments { city } = serde_json::from_str(arguments)?;
    Ok(format!("18 degrees in {city}"))
}

async fn tools_two_turns(client: &ChatClient, mut request: ChatCompletionRequest) -> Result<Value> {
    request.tools = vec![weather_tool()];
    loop {
        let completion = print_tokens(client.stream(&request, TIMEOUT).await?).await?;
        let answer = message(&completion)?;
        let calls = tool_calls(answer);
        if calls.is_empty() {
            return Ok(summary(&completion));
        }
        request.messages.push(answer.clone());
        for call in calls {
            request.messages.push(Message {
                role: Role::Tool.into(),
                content: vec![text_part(weather(&call.arguments)?)],
                tool_call_id: Some(call.id),
                ..Default::default()
            });
        }
    }
}

#[derive(Serialize, Deserialize)]
struct City {
    city: String,
    country: String,
}

async fn structured_output(client: &ChatClient, mut request: ChatCompletionRequest) -> Result<Value> {
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
        "required": ["city", "country"],
        "additionalProperties": false,
    });
    let format = JsonSchemaFormat {
        name: "city".to_owned(),
        schema_json: Some(schema.to_string()),
        strict: Some(true),
        ..Default::default()
    };
    request.response_format = Some(ResponseFormat {
        format: Some(response_format::Format::JsonSchema(format)),
    });
    let completion = client.complete(&request, TIMEOUT).await?;
    let city: City = serde_json::from_str(&text(message(&completion)?))?;
    Ok(serde_json::to_value(city)?)
}

async fn image(client: &ChatClient, model: &str) -> Result<Value> {
    let url = format!("data:image/png;base64,{}", STANDARD.encode(PNG));
    let picture = ContentPart {
        part: Some(content_part::Part::ImageUrl(ImageUrl {
            url,
            ..Default::default()
        })),
        ..Default::default()
    };
    complete(client, &ask(model, vec![text_part("What is this?"), picture])).await
}

/// Aborts a task in the middle of its stream.
async fn cancel(client: ChatClient, request: ChatCompletionRequest) -> Result<Value> {
    let (arrived, first) = tokio::sync::oneshot::channel();
    let mut arrived = Some(arrived);
    let task = tokio::spawn(async move {
        let stream = client.stream(&request, TIMEOUT).await?;
        fold(stream, |token| {
            show(json!({ "token": token }));
            arrived.take().map(|arrived| arrived.send(()));
        })
        .await
    });
    first.await?;
    task.abort();
    Ok(json!({ "cancelled": task.await.is_err_and(|error| error.is_cancelled()) }))
}

/// Drops a stream after its first token.
async fn leave(client: &ChatClient, request: &ChatCompletionRequest) -> Result<Value> {
    let mut stream = client.stream(request, TIMEOUT).await?;
    while let Some(chunk) = stream.next().await? {
        for choice in chunk.choices {
            let token = choice.delta.unwrap_or_default().content.unwrap_or_default();
            if !token.is_empty() {
                show(json!({ "token": token }));
                return Ok(json!({ "left": true }));
            }
        }
    }
    Ok(json!({ "left": false }))
}
