//! Checks that a text in pieces is UTF-8. No I/O.

/// The bytes of a character that a piece began and did not end.
#[derive(Debug, Default)]
pub(super) struct Check {
    pending: [u8; 4],
    length: usize,
}

impl Check {
    /// Takes the next piece; false when the text cannot be UTF-8 any more.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((&first, rest)) = bytes.split_first() else { return true };
            self.pending[self.length] = first;
            self.length += 1;
            bytes = rest;
            match str::from_utf8(&self.pending[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let tail = &bytes[error.valid_up_to()..];
                self.pending[..tail.len()].copy_from_slice(tail);
                self.length = tail.len();
                true
            }
        }
    }

    /// Whether the text may end here.
    pub fn ended(&self) -> bool {
        self.length == 0
    }
}
