//! How a running worker tells the controller how far it is: the message, its bounds, and where token and address lie. Pure, no I/O.
//!
//! Nothing rests on these numbers but what people see: what a worker achieved is in its [`Report`](super::Report) alone.

use serde::{Deserialize, Serialize};

use super::VERSION;

/// Audience of the token that a worker shows, so that it is of no use anywhere else.
pub const AUDIENCE: &str = "checkpoints.dev/progress";
/// Path of the controller's endpoint.
pub const PATH: &str = "/v1/progress";
/// Name of the token's file in [`super::environment::PROGRESS_MOUNT`].
pub const TOKEN_NAME: &str = "token";
/// How long a token is valid, in seconds; the kubelet renews it long before.
pub const TOKEN_SECONDS: i64 = 3600;
/// Longest token that is read, in bytes; a service account's has about one thousand.
pub const TOKEN_LIMIT: usize = 16 << 10;
/// Largest message, in bytes.
pub const MESSAGE_LIMIT: usize = 4096;

/// How far a worker is. Counts are zero until they are known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressMessage {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// Grows with every message of one worker: what overtook a later one is dropped.
    pub sequence: u64,
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// The rate over the last half minute; none until there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// The time left at this rate; none when there is no rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_seconds: Option<u64>,
}

/// Why a message is not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// It is too long.
    #[error("the message has {0} bytes, at most {MESSAGE_LIMIT} are read")]
    TooLong(usize),
    /// It is not JSON, or not a message.
    #[error("this is not a message about progress: {0}")]
    Malformed(String),
    /// Another release wrote it.
    #[error("the message has version {0}, this controller reads version {VERSION}")]
    Version(u32),
    /// Its numbers contradict each other.
    #[error("{0}")]
    Absurd(&'static str),
}

impl ProgressMessage {
    /// Reads a message and checks that its numbers can be true.
    ///
    /// # Errors
    /// When it is too long, not a message, of another version, or contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_LIMIT {
            return Err(MessageError::TooLong(bytes.len()));
        }
        let message: Self =
            serde_json::from_slice(bytes).map_err(|error| MessageError::Malformed(error.to_string()))?;
        if message.version != VERSION {
            return Err(MessageError::Version(message.version));
        }
        let most = i64::MAX.unsigned_abs();
        let contradictions = [
            (message.bytes_done > message.bytes_total, "bytesDone is more than bytesTotal"),
            (message.bytes_total > most, "bytesTotal is more than there can be"),
            (message.bytes_per_second > Some(most), "bytesPerSecond is more than there can be"),
            (message.remaining_seconds > Some(most), "remainingSeconds is more than there can be"),
        ];
        match contradictions.into_iter().find(|(holds, _)| *holds) {
            Some((_, what)) => Err(MessageError::Absurd(what)),
            None => Ok(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> ProgressMessage {
        ProgressMessage {
            version: VERSION,
            sequence: 3,
            bytes_done: 5,
            bytes_total: 9,
            bytes_per_second: Some(1),
            remaining_seconds: Some(4),
        }
    }

    #[test]
    fn the_names_are_those_of_the_contract() {
        let text = serde_json::to_string(&message()).unwrap();
        let expected =
            r#"{"version":1,"sequence":3,"bytesDone":5,"bytesTotal":9,"bytesPerSecond":1,"remainingSeconds":4}"#;
        assert_eq!(text, expected);
        assert_eq!(ProgressMessage::decode(text.as_bytes()), Ok(message()));
        // What a later release adds is passed over.
        let longer = text.replace('{', r#"{"later":[1],"#);
        assert_eq!(ProgressMessage::decode(longer.as_bytes()), Ok(message()));
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let most = u64::MAX;
        for (wrong, says) in [
            (ProgressMessage { bytes_done: 10, ..message() }, "bytesDone is more"),
            (ProgressMessage { bytes_total: most, ..message() }, "bytesTotal is more"),
            (ProgressMessage { bytes_per_second: Some(most), ..message() }, "bytesPerSecond is more"),
            (ProgressMessage { remaining_seconds: Some(most), ..message() }, "remainingSeconds is more"),
            (ProgressMessage { version: 2, ..message() }, "has version 2"),
        ] {
            let error = ProgressMessage::decode(&serde_json::to_vec(&wrong).unwrap()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        for (bytes, says) in [
            (&b"{}"[..], "not a message"),
            (b"[", "not a message"),
            (b"\xff", "not a message"),
            (br#"{"version":1,"sequence":-1}"#, "not a message"),
            (&[b' '; MESSAGE_LIMIT + 1][..], "has 4097 bytes"),
        ] {
            let error = ProgressMessage::decode(bytes).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        let longest = ProgressMessage {
            bytes_total: most / 2,
            bytes_done: most / 2,
            sequence: most,
            bytes_per_second: Some(most / 2),
            remaining_seconds: Some(most / 2),
            ..message()
        };
        assert!(ProgressMessage::decode(&serde_json::to_vec(&longest).unwrap()).is_ok(), "far below the limit");
    }
}
