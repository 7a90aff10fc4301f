//! Runs the scenarios of tests/polyglot/scenarios.py that standard input names, over one connection.

mod client;
mod error;
mod fold;
mod scenarios;

use std::error::Error;

use client::ChatClient;
use error::ChatError;
use serde_json::{json, Value};
use tokio::io::{stdin, AsyncBufReadExt, BufReader};
use tonic::Code;

/// Prints one line.
fn show(line: Value) {
    println!("{line}");
}

/// gRPC's name of a status: `INVALID_ARGUMENT` for `InvalidArgument`.
fn status_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: polyglot ADDRESS")?;
    let url = format!("http://{address}");
    let shared = ChatClient::new(url.clone(), &std::env::var("LMCHAT_API_KEY")?)?;
    let mut names = BufReader::new(stdin()).lines();
    while let Some(name) = names.next_line().await? {
        let client = match name.as_str() {
            "missing_key" => ChatClient::new(url.clone(), "")?,
            "wrong_key" => ChatClient::new(url.clone(), "wrong")?,
            "unreachable" => ChatClient::new("http://127.0.0.1:1".to_owned(), "")?,
            _ => shared.clone(),
        };
        match scenarios::run(&client, &name).await {
            Ok(done) => show(json!({ "done": done })),
            Err(failure) => {
                let error = failure.downcast::<ChatError>()?;
                show(json!({ "error": {
                    "code": status_name(error.code),
                    "reason": error.reason,
                    "param": error.param,
                    "retry_after": error.retry_after.map(|delay| delay.as_secs_f64()),
                }}));
            }
        }
    }
    Ok(())
}
