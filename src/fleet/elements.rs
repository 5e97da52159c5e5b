//! The elements of a JSON file, one by one: of an array, or values that follow each other.

use std::io::{self, BufRead};

/// Bytes of the longest element, which bounds memory.
pub const LONGEST: usize = 1 << 20;

/// Reads elements from JSON text, each in memory alone. Finds where an element ends, and checks nothing else in it.
#[derive(Debug)]
pub struct Elements<R> {
    input: R,
    /// The line of the next byte, from 1 on.
    line: u64,
    element: Vec<u8>,
    is_array: bool,
    read: u64,
}

/// Why no element follows.
#[derive(Debug)]
pub enum Stop {
    /// The text has no element that ends here: the line, and what is wrong.
    Broken(u64, String),
    /// The file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(why: io::Error) -> Self {
        Self::Io(why)
    }
}

impl<R: BufRead> Elements<R> {
    /// Starts at the first byte.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn new(input: R) -> io::Result<Self> {
        let mut elements = Self { input, line: 1, element: Vec::new(), is_array: false, read: 0 };
        elements.skip_space()?;
        if elements.peek()? == Some(b'[') {
            elements.input.consume(1);
            elements.is_array = true;
        }
        Ok(elements)
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.input.fill_buf()?.first().copied())
    }

    fn skip_space(&mut self) -> io::Result<()> {
        while let Some(byte) = self.peek()?.filter(u8::is_ascii_whitespace) {
            self.line += u64::from(byte == b'\n');
            self.input.consume(1);
        }
        Ok(())
    }

    /// The line and the text of the next element; `None` after the last.
    ///
    /// # Errors
    ///
    /// When the file ends within an element or an array, or an element is longer than [`LONGEST`].
    pub fn read_next(&mut self) -> Result<Option<(u64, &[u8])>, Stop> {
        self.skip_space()?;
        let broken = |line: u64, why: &str| Err(Stop::Broken(line, why.to_owned()));
        if self.is_array && self.peek()? == Some(b']') {
            self.input.consume(1);
            self.skip_space()?;
            return match self.peek()? {
                Some(_) => broken(self.line, "found text behind the array, expected its end"),
                None => {
                    self.is_array = false;
                    Ok(None)
                }
            };
        }
        if self.is_array && self.read > 0 {
            if self.peek()? != Some(b',') {
                return broken(self.line, "found no `,` or `]` behind the row before");
            }
            self.input.consume(1);
            self.skip_space()?;
        }
        match self.peek()? {
            None if self.is_array => broken(self.line, "the array has no end"),
            None => Ok(None),
            Some(_) => {
                let line = self.line;
                self.take_element()?;
                self.read += 1;
                Ok(Some((line, &self.element)))
            }
        }
    }

    /// Moves bytes into `element` up to its end.
    fn take_element(&mut self) -> Result<(), Stop> {
        self.element.clear();
        let (start, mut depth, mut in_text, mut is_escaped) = (self.line, 0_u32, false, false);
        loop {
            let Some(byte) = self.peek()? else {
                return match depth == 0 && !in_text {
                    true => Ok(()),
                    false => Err(Stop::Broken(start, "the row that starts here has no end".to_owned())),
                };
            };
            let ends = depth == 0 && !in_text && !self.element.is_empty();
            if ends && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'{' | b'[' | b'"')) {
                return Ok(());
            }
            self.input.consume(1);
            self.line += u64::from(byte == b'\n');
            if self.element.len() == LONGEST {
                return Err(Stop::Broken(
                    start,
                    format!("the row that starts here is longer than {LONGEST} bytes"),
                ));
            }
            self.element.push(byte);
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_text => is_escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<(u64, String)>, Option<u64>) {
        let mut elements = Elements::new(text.as_bytes()).unwrap();
        let mut found = Vec::new();
        loop {
            match elements.read_next() {
                Ok(Some((line, element))) => found.push((line, String::from_utf8(element.to_vec()).unwrap())),
                Ok(None) => return (found, None),
                Err(Stop::Broken(line, _)) => return (found, Some(line)),
                Err(Stop::Io(why)) => panic!("{why}"),
            }
        }
    }

    #[test]
    fn elements_of_an_array_and_values_that_follow_each_other() {
        let rows =
            || vec![(1, r#"{"a":"],}\""}"#.to_owned()), (2, "3".to_owned()), (3, "[1,\n2]".to_owned())];
        assert_eq!(read("[{\"a\":\"],}\\\"\"},\n3 ,\n[1,\n2]]\n"), (rows(), None));
        assert_eq!(
            read("{\"a\":\"],}\\\"\"}\n3\n[1,\n2]"),
            (vec![rows()[0].clone(), rows()[1].clone(), rows()[2].clone()], None)
        );
        assert_eq!(read(" \n"), (vec![], None));
        assert_eq!(read("[]"), (vec![], None));
    }

    #[test]
    fn broken_text_stops_at_its_line() {
        let stops = |text: &str| read(text).1;
        assert_eq!(stops("[1\n2]"), Some(2));
        assert_eq!(stops("[1,\n{\"a\":1"), Some(2));
        assert_eq!(stops("[1,2"), Some(1));
        assert_eq!(stops("[1]\n x"), Some(2));
        assert_eq!(stops(&format!("[\n\"{}\"]", "x".repeat(LONGEST))), Some(2));
    }
}
