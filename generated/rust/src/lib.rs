//! Typed client stubs of lmchat, a chat-completions gateway.

/// The contract, version 1.
#[allow(clippy::all, rustdoc::all)]
pub mod v1 {
    include!("lmchat/v1/lmchat.v1.rs");
}
