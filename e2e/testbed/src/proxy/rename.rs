//! Replaces one name by another in a stream of bytes that comes in pieces.

/// What a name is replaced by, in one direction.
#[derive(Clone, Debug)]
pub(super) struct Rename {
    from: Vec<u8>,
    to: Vec<u8>,
    /// The end of what has come, as long as it may be the beginning of the name.
    held: Vec<u8>,
}

impl Rename {
    /// Both names have to be as long as each other: protocols say lengths beforehand.
    pub(super) fn new(from: &str, to: &str) -> Self {
        assert!(!from.is_empty() && from.len() == to.len(), "{from:?} and {to:?} differ in length");
        Self { from: from.into(), to: to.into(), held: Vec::new() }
    }

    /// What goes on of what came. A beginning of the name at its end waits for the rest.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut passing = std::mem::take(&mut self.held);
        passing.extend_from_slice(bytes);
        let mut at = 0;
        while at + self.from.len() <= passing.len() {
            if passing[at..].starts_with(&self.from) {
                passing[at..at + self.to.len()].copy_from_slice(&self.to);
                at += self.to.len();
            } else {
                at += 1;
            }
        }
        let begins = |at: &usize| self.from.starts_with(&passing[*at..]);
        let held_from = (at..passing.len()).find(begins).unwrap_or(passing.len());
        self.held = passing.split_off(held_from);
        passing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_replaced_wherever_the_pieces_are_cut() {
        let said = b"aab aaab aab! aaaab a";
        let expected = b"xyz axyz xyz! aaxyz ";
        for piece in 1..=said.len() {
            let mut rename = Rename::new("aab", "xyz");
            let passed: Vec<u8> = said.chunks(piece).flat_map(|bytes| rename.pass(bytes)).collect();
            assert_eq!(String::from_utf8_lossy(&passed), String::from_utf8_lossy(expected), "pieces of {piece}");
            assert_eq!(rename.pass(b"b"), b"ab", "what was held goes on with what follows");
        }
    }

    #[test]
    fn nothing_is_held_that_cannot_become_the_name() {
        let mut rename = Rename::new("v1.", "v2.");
        assert_eq!(rename.pass(b"harborhook.v1.default\xce"), b"harborhook.v2.default\xce");
    }
}
