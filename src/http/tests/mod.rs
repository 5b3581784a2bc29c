//! Each hostile input runs whole, cut in two at every byte, and dripped byte by byte; all three
//! must end in the same verdict at the same byte.

mod before;
mod before_scan;
mod bodies;
mod heads;
mod oracle;
mod random;
mod responses;
mod smuggling;

use super::{BodyDecoder, Field, Framing, Method, RequestHead, ResponseHead, Step, write};
use crate::reject::Reject;

/// What a stream of bytes from a client was taken for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Reading {
    requests: Vec<Request>,
    /// Why it stopped.
    refused: Option<Reject>,
    /// Bytes of the stream that belong to complete requests.
    consumed: usize,
    /// True when the stream ended inside of a request.
    inside: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    method: Method,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    keep_alive: bool,
}

/// Reads a connection as the gateway does, one arrival after the other.
struct Connection {
    buffer: Vec<u8>,
    head: RequestHead,
    /// The request whose body is being read.
    open: Option<(Request, BodyDecoder)>,
    reading: Reading,
    /// Bytes handed out to heads and bodies.
    taken: usize,
    closed: bool,
}

impl Connection {
    fn new() -> Self {
        Self {
            buffer: Vec::new(),
            head: RequestHead::new(),
            open: None,
            reading: Reading::default(),
            taken: 0,
            closed: false,
        }
    }

    fn arrive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        while !self.closed {
            let went_on = match self.open.take() {
                None => self.read_head(),
                Some((request, decoder)) => self.read_body(request, decoder),
            };
            match went_on {
                Ok(true) => {}
                Ok(false) => break,
                Err(reject) => {
                    self.reading.refused = Some(reject);
                    self.closed = true;
                }
            }
        }
    }

    fn finish(mut self) -> Reading {
        self.reading.inside = !self.closed && (self.open.is_some() || !self.buffer.is_empty());
        self.reading
    }

    fn read_head(&mut self) -> Result<bool, Reject> {
        let Some(length) = self.head.parse(&self.buffer)? else { return Ok(false) };
        let request = Request {
            method: self.head.method(),
            target: String::from_utf8(self.head.target(&self.buffer).to_vec()).unwrap(),
            fields: self
                .head
                .fields(&self.buffer)
                .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
                .collect(),
            body: Vec::new(),
            keep_alive: self.head.keep_alive(),
        };
        let decoder = BodyDecoder::new(self.head.framing(), BODY_MAX)?;
        self.take(length);
        self.head.reset();
        self.open = Some((request, decoder));
        Ok(true)
    }

    fn read_body(
        &mut self,
        mut request: Request,
        mut decoder: BodyDecoder,
    ) -> Result<bool, Reject> {
        let step = decoder.decode(&self.buffer)?;
        request.body.extend_from_slice(&self.buffer[step.data.clone()]);
        self.take(step.consumed);
        assert_eq!(step.done, decoder.finished());
        if step.done {
            self.closed = !request.keep_alive;
            self.reading.requests.push(request);
            self.reading.consumed = self.taken;
            return Ok(true);
        }
        self.open = Some((request, decoder));
        Ok(step.consumed > 0)
    }

    fn take(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.taken += count;
    }
}

/// Reads `stream` in the given pieces.
fn read_cut(stream: &[u8], cuts: &[usize]) -> Reading {
    let mut connection = Connection::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        connection.arrive(&stream[from..cut]);
        from = cut;
    }
    connection.finish()
}

/// Reads `stream` whole, cut at every byte, and dripped; all must agree.
fn read(stream: &[u8]) -> Reading {
    let whole = read_cut(stream, &[]);
    oracle::both_readers_agree(stream);
    for cut in 0..stream.len() {
        assert_eq!(read_cut(stream, &[cut]), whole, "{:?} cut at {cut}", show(stream));
    }
    let every: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(read_cut(stream, &every), whole, "{:?} dripped", show(stream));
    whole
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Bytes of a body that the tests accept.
const BODY_MAX: u64 = 4096;

/// Parses one head whole and returns the parser.
fn parsed(head: &[u8]) -> RequestHead {
    let mut parser = RequestHead::new();
    assert_eq!(parser.parse(head), Ok(Some(head.len())), "{}", show(head));
    parser
}

/// After how many dripped bytes a head is refused, and why.
fn refused_at(stream: &[u8]) -> Option<(usize, Reject)> {
    let mut parser = RequestHead::new();
    (0..=stream.len()).find_map(|end| parser.parse(&stream[..end]).err().map(|why| (end, why)))
}

/// xorshift64*: the same sequence for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}
