//! What a connection says by itself: messages of the handshake, alerts, the goodbye.

use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};

use crate::net::NetError;

/// Appends a message of the connection's own.
pub(super) fn encode<D>(
    mut message: EncodeTlsData<'_, D>,
    outgoing: &mut Vec<u8>,
) -> Result<(), NetError> {
    let begin = outgoing.len();
    let mut room = 0;
    loop {
        outgoing.resize(begin + room, 0);
        match message.encode(outgoing.get_mut(begin..).unwrap_or_default()) {
            Ok(count) => {
                outgoing.truncate(begin + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size }))
                if required_size > room =>
            {
                room = required_size;
            }
            Err(EncodeError::InsufficientSize(_) | EncodeError::AlreadyEncoded) => {
                outgoing.truncate(begin);
                return Err(NetError::Tls);
            }
        }
    }
}

/// True when the alert is still to come. Going on after it would read the record that failed once
/// more. The error that brought us here is reported either way.
pub(super) fn alert<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Vec<u8>) -> bool {
    let begin = outgoing.len();
    let Ok(ConnectionState::EncodeTlsData(message)) = status.state else { return false };
    encode(message, outgoing).is_ok()
        && matches!(outgoing.get(begin), Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE)))
}

/// Appends `close_notify`.
pub(super) fn goodbye<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Vec<u8>) {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else { return };
    let begin = outgoing.len();
    outgoing.resize(begin + ALERT_BYTES_MAX, 0);
    let free = outgoing.get_mut(begin..).unwrap_or_default();
    let count = traffic.queue_close_notify(free).unwrap_or(0);
    outgoing.truncate(begin + count);
}

/// Record types in the clear (RFC 8446 §5.1): what a last flight may hold before its alert.
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
/// An alert on the wire.
const ALERT_BYTES_MAX: usize = 64;
