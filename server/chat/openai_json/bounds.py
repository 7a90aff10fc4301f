"""What numbers of a request may be, both bounds included, in JSON and in typed requests."""

from server.chat.openai_json.fields import INT32_MAX, INT64_MAX

NUMBERS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
INTEGERS = {
    "max_tokens": (1, INT32_MAX),
    "max_completion_tokens": (1, INT32_MAX),
    "top_logprobs": (0, 20),
    "n": (1, 128),
    "seed": (-INT64_MAX - 1, INT64_MAX),
}
