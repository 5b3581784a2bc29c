//! A peer that is always ready and always says the same: what `whole_way` talks to instead of
//! sockets.

use std::net::{Ipv4Addr, SocketAddr};

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, Slice, SliceMut};

/// Answers every read with the same bytes and takes every write whole.
pub(super) struct Script {
    says: Vec<u8>,
}

impl Script {
    pub(super) const fn new(says: Vec<u8>) -> Self {
        Self { says }
    }

    /// As a socket would: appends what fits into the slice.
    pub(super) fn read(&self, buf: SliceMut<Vec<u8>>) -> BufResult<usize, SliceMut<Vec<u8>>> {
        let (begin, end) = (buf.begin(), buf.end());
        let mut bytes = buf.into_inner();
        bytes.truncate(begin);
        let said = self.says.get(..end - begin).unwrap_or(&self.says);
        bytes.extend_from_slice(said);
        (Ok(said.len()), bytes.slice_mut(begin..end))
    }

    pub(super) fn write(&self, buf: Slice<Vec<u8>>) -> BufResult<usize, Slice<Vec<u8>>> {
        (Ok(buf.bytes_init()), buf)
    }
}

/// The address that such a peer seems to have.
pub(super) const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
