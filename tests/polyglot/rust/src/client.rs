//! Calls of one gateway over one connection, with keepalive, the key as metadata, retries and deadlines.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use lmchat_client::v1::chat_completions_client::ChatCompletionsClient;
use lmchat_client::v1::models_client::ModelsClient;
use lmchat_client::v1::{ChatCompletion, ChatCompletionChunk, ChatCompletionRequest, GetModelRequest, Model};
use tokio::time::{sleep, timeout_at, Instant};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::error::ChatError;

/// The time a call may take, with its retries, unless told otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(600);
/// Bytes of the largest completion; tonic's own limit is 4 MiB.
const MAX_MESSAGE: usize = 64 << 20;
const MAX_ATTEMPTS: u32 = 3;
/// Before the second attempt; twice as long before the third.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

type Service = InterceptedService<Channel, BearerToken>;

/// Sends the key with every call.
#[derive(Clone)]
struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A client; clones share its connection. Dropping a call's future or a stream cancels the call.
#[derive(Clone)]
pub struct ChatClient {
    chat: ChatCompletionsClient<Service>,
    models: ModelsClient<Service>,
}

impl ChatClient {
    /// A client of the gateway at `url`; it connects with its first call.
    pub fn new(url: String, key: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let channel = Endpoint::from_shared(url)?
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_lazy();
        let token = match key {
            "" => None,
            _ => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse()?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let service = InterceptedService::new(channel, BearerToken(token));
        Ok(Self {
            chat: ChatCompletionsClient::new(service.clone()).max_decoding_message_size(MAX_MESSAGE),
            models: ModelsClient::new(service),
        })
    }

    /// The whole completion.
    pub async fn complete(
        &self,
        request: &ChatCompletionRequest,
        timeout: Duration,
    ) -> Result<ChatCompletion, ChatError> {
        with_retries(Instant::now() + timeout, |remaining| {
            let (mut chat, call) = (self.chat.clone(), with_timeout(request.clone(), remaining));
            async move { Ok(chat.create_chat_completion(call).await?.into_inner()) }
        })
        .await
    }

    /// The completion in chunks, as they arrive.
    pub async fn stream(
        &self,
        request: &ChatCompletionRequest,
        timeout: Duration,
    ) -> Result<ChatStream, ChatError> {
        let deadline = Instant::now() + timeout;
        let (first, chunks) = with_retries(deadline, |remaining| {
            let (mut chat, call) = (self.chat.clone(), with_timeout(request.clone(), remaining));
            async move {
                let mut chunks = chat.stream_chat_completion(call).await?.into_inner();
                Ok((chunks.message().await?, chunks))
            }
        })
        .await?;
        Ok(ChatStream {
            first,
            chunks,
            deadline,
        })
    }

    /// One model of the catalogue.
    pub async fn model(&self, id: &str) -> Result<Model, ChatError> {
        with_retries(Instant::now() + TIMEOUT, |remaining| {
            let request = GetModelRequest { model: id.to_owned() };
            let (mut models, call) = (self.models.clone(), with_timeout(request, remaining));
            async move { Ok(models.get_model(call).await?.into_inner()) }
        })
        .await
    }
}

/// The chunks of one completion.
pub struct ChatStream {
    first: Option<ChatCompletionChunk>,
    chunks: Streaming<ChatCompletionChunk>,
    deadline: Instant,
}

impl ChatStream {
    /// The next chunk, None at the end; an error if the stream fails or breaks.
    pub async fn next(&mut self) -> Result<Option<ChatCompletionChunk>, ChatError> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => before(self.deadline, self.chunks.message()).await,
        }
    }
}

/// A request that tells the gateway how much time is left.
fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The result of a call, or TIMEOUT at the deadline. tonic itself reports that as CANCELLED.
async fn before<T>(deadline: Instant, call: impl Future<Output = Result<T, Status>>) -> Result<T, ChatError> {
    match timeout_at(deadline, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(status)) if status.code() != Code::Cancelled || Instant::now() < deadline => Err(status.into()),
        _ => Err(Status::deadline_exceeded("no response before the deadline").into()),
    }
}

/// Calls again what fails as UNAVAILABLE, since tonic has no retry policy: no content had left, so the call may be
/// repeated, also a stream before its first chunk. `call` gets the time that is left.
async fn with_retries<T, F>(deadline: Instant, call: impl Fn(Duration) -> F) -> Result<T, ChatError>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut attempt = 1;
    loop {
        match before(deadline, call(deadline - Instant::now())).await {
            Err(error) if error.code == Code::Unavailable && attempt < MAX_ATTEMPTS => {}
            result => return result,
        }
        sleep(INITIAL_BACKOFF.mul_f64(jitter()) * 2u32.pow(attempt - 1)).await;
        attempt += 1;
    }
}

/// A random factor from 0.8 to 1.2.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.8 + 0.4 * (random as f64 / u64::MAX as f64)
}
