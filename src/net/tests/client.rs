use std::io::{Read, Write};

use super::*;
use crate::config::UpstreamUrl;
use crate::net::client::{Answer, get};
use crate::reject::Reject;

/// Serves `answer` once from a thread; gives back the request.
fn serve(answer: Vec<u8>) -> (UpstreamUrl, SocketAddr, std::thread::JoinHandle<String>) {
    let (listener, address) = loopback();
    let server = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tcp.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        // A client that has seen enough closes before the end of a long answer.
        let _ = tcp.write_all(&answer);
        String::from_utf8(request).unwrap()
    });
    let url = UpstreamUrl {
        tls: false,
        host: "127.0.0.1".to_owned(),
        literal: Some(address.ip()),
        port: address.port(),
        authority: address.to_string(),
        target: "/keys?a=b".to_owned(),
    };
    (url, address, server)
}

#[test]
fn a_get_gives_status_body_and_how_long_it_is_fresh() {
    on_every_driver(|timers| async move {
        let fixed =
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=90\r\nContent-Length: 5\r\n\r\nhello";
        let interim = format!("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n{fixed}");
        let chunked = "HTTP/1.1 200 OK\r\nCache-Control: max-age=90\r\n\
                       Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        let open = "HTTP/1.1 200 OK\r\nCache-Control: max-age=90\r\n\r\nhello";
        for answer in [fixed, &interim, chunked, open] {
            let (url, address, server) = serve(answer.as_bytes().to_vec());
            let got = get(&url, &[address], None, 5, &timers, soon(&timers)).await;
            let expected = Answer {
                status: 200,
                cache_control: Some("max-age=90".to_owned()),
                body: b"hello".to_vec(),
            };
            assert_eq!(got, Ok(expected), "{answer}");
            let request = server.join().unwrap();
            assert!(request.starts_with("GET /keys?a=b HTTP/1.1\r\n"), "{request}");
            assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
        }
    });
}

#[test]
fn f05_long_coded_torn_and_moved_answers_are_not_taken_for_keys() {
    on_every_driver(|timers| async move {
        let long_head = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(40_000));
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", Reject::UpstreamMalformed),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello!\r\n0\r\n\r\n",
                Reject::UpstreamMalformed,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello!", Reject::UpstreamMalformed),
            (
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
                Reject::UpstreamMalformed,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", Reject::UpstreamEof),
            ("HTTP/1.1 200 OK\r\nContent-Le", Reject::UpstreamEof),
            (&long_head, Reject::UpstreamMalformed),
            ("ICY 200 OK\r\n\r\n", Reject::UpstreamMalformed),
        ] {
            let (url, address, server) = serve(answer.as_bytes().to_vec());
            let got = get(&url, &[address], None, 5, &timers, soon(&timers)).await;
            assert_eq!(got, Err(expected), "{}", answer.get(..80).unwrap_or(answer));
            server.join().unwrap();
        }
        let moved =
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n";
        let (url, address, server) = serve(moved.as_bytes().to_vec());
        let got = get(&url, &[address], None, 5, &timers, soon(&timers)).await;
        assert_eq!(got.map(|answer| answer.status), Ok(302), "told, not followed");
        server.join().unwrap();
        let (url, address, _) = serve(Vec::new());
        let url = UpstreamUrl { tls: true, ..url };
        let got = get(&url, &[address], None, 5, &timers, soon(&timers)).await;
        assert_eq!(got, Err(Reject::UpstreamTls), "never in the clear instead");
    });
}

#[test]
fn a_get_ends_at_its_deadline_however_slowly_bytes_drip() {
    on_every_driver(|timers| async move {
        let (listener, address) = loopback();
        let dripping = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n";
            let mut wrote = tcp.write_all(head);
            while wrote.is_ok() {
                std::thread::sleep(Duration::from_millis(5));
                wrote = tcp.write_all(b"a");
            }
        });
        let (mut url, _, _) = serve(Vec::new());
        url.port = address.port();
        let begin = timers.exact();
        let until = begin.after(Duration::from_millis(200));
        let got = get(&url, &[address], None, 60_000, &timers, until).await;
        assert_eq!(got, Err(Reject::UpstreamTimeout));
        assert!(timers.exact().micros_since(begin) < 2_000_000);
        // The ring closes the socket in its own time; the thread ends with it.
        while !dripping.is_finished() {
            timers.sleep_until(after(&timers, 10)).await;
        }
    });
}
