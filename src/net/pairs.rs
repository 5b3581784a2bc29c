//! Unnamed stream pairs between the cores, made before their threads start: the one way on which
//! data of a request goes from one core to another, see `mail`.

use std::io;
use std::os::unix::net::UnixStream;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable};

/// One core's end of a pair.
pub struct End {
    /// The core at the other end.
    pub to: u16,
    stream: UnixStream,
}

/// A pair between every two of `cores` cores; the answer holds what each of them gets.
///
/// # Errors
/// What the kernel said: `cores * (cores - 1)` descriptors are needed.
pub fn between(cores: u16) -> io::Result<Vec<Vec<End>>> {
    let mut ends: Vec<Vec<End>> = (0..cores).map(|_| Vec::new()).collect();
    for one in 0..cores {
        for other in one + 1..cores {
            let (near, far) = UnixStream::pair()?;
            for (core, to, stream) in [(one, other, near), (other, one, far)] {
                if let Some(own) = ends.get_mut(usize::from(core)) {
                    own.push(End { to, stream });
                }
            }
        }
    }
    Ok(ends)
}

/// Reads what the other core writes.
pub struct Incoming(OwnedReadHalf<monoio::net::UnixStream>);

/// Writes what the other core reads.
pub struct Outgoing(OwnedWriteHalf<monoio::net::UnixStream>);

impl End {
    /// Hands the end to the event loop of this thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(self) -> io::Result<(Incoming, Outgoing)> {
        self.stream.set_nonblocking(monoio::utils::is_legacy())?;
        let stream = monoio::net::UnixStream::from_std(self.stream)?;
        let (read, write) = stream.into_split();
        Ok((Incoming(read), Outgoing(write)))
    }
}

impl Incoming {
    /// What came, into `buffer`, which is given back. Never drop this before its end.
    ///
    /// # Errors
    /// What the kernel said, or that the other end is gone.
    pub async fn read(&mut self, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        let (result, buffer) = self.0.read(buffer).await;
        if result? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) }
    }
}

impl Outgoing {
    /// Writes all of `bytes`. Never drop this before its end.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.0.write_all(bytes).await.0.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn every_core_is_joined_to_every_other_and_to_none_twice() {
        for cores in 0..5_u16 {
            let ends = between(cores).unwrap();
            assert_eq!(ends.len(), usize::from(cores));
            for (core, own) in (0..cores).zip(&ends) {
                let others: Vec<u16> = own.iter().map(|end| end.to).collect();
                let expected: Vec<u16> = (0..cores).filter(|other| *other != core).collect();
                assert_eq!(others, expected);
            }
            // What one writes to another arrives there and nowhere else.
            for (core, own) in (0..cores).zip(&ends) {
                for end in own {
                    (&end.stream).write_all(&[core as u8]).unwrap();
                    let back = ends[usize::from(end.to)].iter().find(|end| end.to == core);
                    let mut heard = [0; 1];
                    (&back.unwrap().stream).read_exact(&mut heard).unwrap();
                    assert_eq!(heard, [core as u8]);
                }
            }
        }
    }
}
