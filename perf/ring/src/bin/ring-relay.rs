//! The relay on a ring of its own. See the library.

use std::process::ExitCode;

use portcullis_ring::options::Options;
use portcullis_ring::relay::Relay;
use portcullis_ring::sockets;

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
            eprintln!("ring-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> std::io::Result<()> {
    let listener = sockets::listen(options.listen)?;
    let relay = Relay::new(&listener, options)?;
    eprintln!("listening on {}", listener.local_addr()?);
    relay.run()
}
