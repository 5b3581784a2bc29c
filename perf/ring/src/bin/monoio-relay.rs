//! The same relay on monoio. See the library.

use std::process::ExitCode;

use portcullis_ring::options::Options;
use portcullis_ring::{sockets, twin};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::from(64);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monoio-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> std::io::Result<()> {
    let listener = sockets::listen(options.listen)?;
    let address = listener.local_addr()?;
    twin::run(listener, options, || eprintln!("listening on {address}"))
}
