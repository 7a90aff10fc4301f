//! Folds the chunks of a stream into a completion.

use lmchat_client::v1::{
    content_part, tool_call, tool_call_delta, ChatCompletion, ChatCompletionChunk, Choice, ContentPart,
    CustomToolCall, Delta, FinishReason, FunctionCall, Message, Role, ToolCall, ToolCallDelta,
};

use crate::client::ChatStream;
use crate::error::ChatError;

/// The completion that the chunks of a stream add up to; `token` gets each content as it arrives.
pub async fn fold(mut stream: ChatStream, mut token: impl FnMut(&str)) -> Result<ChatCompletion, ChatError> {
    let mut completion = ChatCompletion::default();
    while let Some(chunk) = stream.next().await? {
        chunk
            .choices
            .iter()
            .filter_map(|choice| choice.delta.as_ref())
            .map(|delta| delta.content())
            .filter(|content| !content.is_empty())
            .for_each(&mut token);
        add(&mut completion, chunk);
    }
    Ok(completion)
}

/// Adds one chunk to a completion. Log probabilities and audio are left out.
pub fn add(completion: &mut ChatCompletion, chunk: ChatCompletionChunk) {
    completion.id = chunk.id;
    completion.created = chunk.created;
    completion.model = chunk.model;
    completion.usage = chunk.usage.or(completion.usage.take());
    completion.lmchat = chunk.lmchat.or(completion.lmchat.take());
    for piece in chunk.choices {
        while completion.choices.len() <= piece.index as usize {
            let message = Message {
                role: Role::Assistant.into(),
                ..Default::default()
            };
            completion.choices.push(Choice {
                index: completion.choices.len() as i32,
                message: Some(message),
                ..Default::default()
            });
        }
        let choice = &mut completion.choices[piece.index as usize];
        if piece.finish_reason != FinishReason::Unspecified as i32 {
            choice.finish_reason = piece.finish_reason;
        }
        choice.stop_sequence = piece.stop_sequence.or(choice.stop_sequence.take());
        if let (Some(message), Some(delta)) = (&mut choice.message, piece.delta) {
            add_delta(message, delta);
        }
    }
}

fn add_delta(message: &mut Message, delta: Delta) {
    if let Some(content) = delta.content.filter(|content| !content.is_empty()) {
        match message.content.first_mut() {
            Some(ContentPart {
                part: Some(content_part::Part::Text(text)),
                ..
            }) => *text += &content,
            _ => message.content.push(text_part(content)),
        }
    }
    append(&mut message.refusal, delta.refusal);
    append(&mut message.reasoning_content, delta.reasoning_content);
    message.reasoning_details.extend(delta.reasoning_details);
    message.annotations.extend(delta.annotations);
    for piece in delta.tool_calls {
        while message.tool_calls.len() <= piece.index as usize {
            message.tool_calls.push(ToolCall::default());
        }
        add_tool_call(&mut message.tool_calls[piece.index as usize], piece);
    }
}

fn append(whole: &mut Option<String>, piece: Option<String>) {
    if let Some(piece) = piece {
        whole.get_or_insert_default().push_str(&piece);
    }
}

fn add_tool_call(whole: &mut ToolCall, piece: ToolCallDelta) {
    whole.id += piece.id();
    if !piece.extra_json.is_empty() {
        whole.extra_json = piece.extra_json;
    }
    match piece.call {
        Some(tool_call_delta::Call::Function(piece)) => {
            let empty = || tool_call::Call::Function(FunctionCall::default());
            if let tool_call::Call::Function(function) = whole.call.get_or_insert_with(empty) {
                function.name += &piece.name;
                function.arguments += &piece.arguments;
            }
        }
        Some(tool_call_delta::Call::Custom(piece)) => {
            let empty = || tool_call::Call::Custom(CustomToolCall::default());
            if let tool_call::Call::Custom(custom) = whole.call.get_or_insert_with(empty) {
                custom.name += &piece.name;
                custom.input += &piece.input;
            }
        }
        None => {}
    }
}

/// A text part.
pub fn text_part(text: impl Into<String>) -> ContentPart {
    ContentPart {
        part: Some(content_part::Part::Text(text.into())),
        ..Default::default()
    }
}

/// The text of a message.
pub fn text(message: &Message) -> String {
    let texts = message.content.iter().filter_map(|part| match &part.part {
        Some(content_part::Part::Text(text)) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}
