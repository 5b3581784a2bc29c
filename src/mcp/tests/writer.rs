//! Generates messages, mostly well-formed, and damages them.

/// splitmix64: a seed is a whole test.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Writes one message, mostly well-formed.
pub(super) struct Writer {
    random: Random,
    out: String,
}

impl Writer {
    /// One message, and the generator behind it.
    pub(super) fn message_of(random: Random) -> (Random, Vec<u8>) {
        let mut writer = Self { random, out: String::new() };
        writer.message();
        (writer.random, writer.out.into_bytes())
    }

    fn message(&mut self) {
        const METHODS: [&str; 9] = [
            "tools/call",
            "tools/call",
            "tools/list",
            "resources/read",
            "completion/complete",
            "subscriptions/listen",
            "notifications/cancelled",
            "notifications/other",
            "com.example/thing",
        ];
        const IDS: [&str; 12] = [
            "1",
            "-0",
            "\"a\"",
            "\"\\u0061\\\"\"",
            "18446744073709551615",
            "\"\u{e9}\"",
            "\"\"",
            "-9223372036854775808",
            "1.0",
            "null",
            "1e2",
            "{}",
        ];
        let method = self.random.pick(&METHODS);
        let has_id = method.starts_with("notifications") == self.random.one_in(12);
        let mut members = vec![("jsonrpc", 0), ("method", 1), ("params", 2)];
        if has_id {
            members.push(("id", 3));
        }
        if self.random.one_in(6) {
            members.push((
                self.random.pick(&["x", "Method", "result", "error", "_meta", "i\\u0000d"]),
                4,
            ));
        }
        if self.random.one_in(10) {
            members.retain(|(_, what)| *what != 1 && *what != 2);
            members.push((self.random.pick(&["result", "error"]), 4));
        }
        if self.random.one_in(12) {
            let again = members[self.random.below(members.len())];
            members.push(again);
        }
        for at in (1..members.len()).rev() {
            members.swap(at, self.random.below(at + 1));
        }
        self.open('{');
        for (at, (key, what)) in members.into_iter().enumerate() {
            self.comma(at);
            self.key(key);
            match what {
                0 => self.out.push_str("\"2.0\""),
                1 => self.string(method),
                2 => self.params(method),
                3 => {
                    let good = if self.random.one_in(8) { IDS.len() } else { 8 };
                    let id = self.random.pick(&IDS[..good]);
                    self.out.push_str(id);
                }
                _ => self.value(4),
            }
        }
        self.space();
        self.out.push('}');
    }

    fn params(&mut self, method: &str) {
        const EXTRA: [&str; 12] = [
            "name",
            "uri",
            "arguments",
            "Name",
            "x",
            "ur\u{131}",
            "ta\u{17f}\u{212a}",
            "_meta",
            "cursor",
            "argument\u{17f}",
            "names",
            "task",
        ];
        if self.random.one_in(30) {
            return self.value(3);
        }
        self.open('{');
        let mut written = 0;
        let main = match method {
            "tools/call" => "name",
            "resources/read" => "uri",
            "completion/complete" => "ref",
            "subscriptions/listen" => "notifications",
            _ => "y",
        };
        let mut keys = vec![main];
        for _ in 0..self.random.below(4) {
            keys.push(self.random.pick(&EXTRA));
        }
        if !self.random.one_in(5) {
            let mut seen = Vec::new();
            keys.retain(|key| {
                !seen.contains(key) && {
                    seen.push(*key);
                    true
                }
            });
        }
        for at in (1..keys.len()).rev() {
            keys.swap(at, self.random.below(at + 1));
        }
        for key in keys {
            self.comma(written);
            written += 1;
            self.key(key);
            match key {
                _ if self.random.one_in(25) => self.value(2),
                "name" | "uri" => self.any_string(),
                "_meta" => self.object(&[
                    "io.modelcontextprotocol/protocolVersion",
                    "traceparent",
                    "progressToken",
                    "Traceparent",
                    "com.example/x",
                ]),
                "ref" => self.reference(),
                "notifications" => self.listen(),
                _ => self.value(5),
            }
        }
        self.space();
        self.out.push('}');
    }

    fn reference(&mut self) {
        let kind = self.random.pick(&["ref/prompt", "ref/resource", "ref/prompt", "ref/x"]);
        let key = self.random.pick(&["name", "uri", "name", "Name"]);
        self.out.push_str("{\"type\":");
        self.string(kind);
        self.out.push(',');
        self.key(key);
        self.any_string();
        self.out.push('}');
    }

    fn listen(&mut self) {
        self.open('{');
        let key = self.random.pick(&[
            "resourceSubscriptions",
            "resourceSubscriptions",
            "taskIds",
            "toolslistchanged",
        ]);
        self.key(key);
        self.open('[');
        for at in 0..self.random.below(4) {
            self.comma(at);
            if self.random.one_in(20) { self.value(1) } else { self.any_string() }
        }
        self.out.push_str("]}");
    }

    fn object(&mut self, keys: &[&str]) {
        self.open('{');
        for at in 0..self.random.below(keys.len()) {
            self.comma(at);
            let key = if self.random.one_in(9) { self.random.pick(keys) } else { keys[at] };
            self.key(key);
            if self.random.one_in(9) { self.value(2) } else { self.any_string() }
        }
        self.out.push('}');
    }

    fn value(&mut self, levels: usize) {
        const SCALARS: [&str; 11] = [
            "null",
            "true",
            "false",
            "0",
            "-1",
            "1.5",
            "1e3",
            "-0.0",
            "1E-2",
            "9007199254740993",
            "{}",
        ];
        self.space();
        match self.random.below(if levels == 0 { 2 } else { 4 }) {
            0 => self.any_string(),
            1 => {
                let scalar = self.random.pick(&SCALARS);
                self.out.push_str(scalar);
            }
            2 => {
                let deep = if self.random.one_in(40) { 40 + self.random.below(40) } else { 1 };
                self.out.push_str(&"[".repeat(deep));
                for at in 0..self.random.below(5) {
                    self.comma(at);
                    self.value(levels - 1);
                }
                self.out.push_str(&"]".repeat(deep));
            }
            _ => {
                let count = if self.random.one_in(10) { 40 } else { 5 };
                let names = if self.random.one_in(3) { 60 } else { 100_000 };
                self.open('{');
                for at in 0..self.random.below(count) {
                    self.comma(at);
                    let key = format!("k{}", self.random.below(names));
                    self.key(&key);
                    self.value(if count > 5 { 0 } else { levels - 1 });
                }
                self.out.push('}');
            }
        }
        self.space();
    }

    fn any_string(&mut self) {
        const TEXTS: [&str; 12] = [
            "add",
            "a b",
            "\u{e9}\u{1f600}",
            "",
            "file:///x",
            "2026-07-28",
            "\\n\\t\\/",
            "\\u0000",
            "\\ud83d\\ude00",
            "\\ud800",
            "=?base64?YQ==?=",
            "{\\\"id\\\":1,[",
        ];
        let good = if self.random.one_in(10) { TEXTS.len() } else { 7 };
        let text = self.random.pick(&TEXTS[..good]);
        self.out.push('"');
        self.out.push_str(text);
        self.out.push('"');
    }

    fn key(&mut self, key: &str) {
        self.space();
        self.string(key);
        self.space();
        self.out.push(':');
        self.space();
    }

    /// A string, some characters of it escaped; what is escaped already stays.
    fn string(&mut self, text: &str) {
        self.out.push('"');
        let plain = text.contains('\\') || !self.random.one_in(10);
        for character in text.chars() {
            if plain || !self.random.one_in(3) {
                self.out.push(character);
            } else {
                self.out.push_str(&format!("\\u{:04x}", character as u32));
            }
        }
        self.out.push('"');
    }

    fn open(&mut self, bracket: char) {
        self.space();
        self.out.push(bracket);
    }

    fn comma(&mut self, at: usize) {
        if at > 0 {
            self.out.push(',');
        }
    }

    fn space(&mut self) {
        if self.random.one_in(12) {
            let space = self.random.pick(&[" ", "\n", "\t", "\r\n  "]);
            self.out.push_str(space);
        }
    }
}

/// Damages some bytes, in ways that parsers tend to disagree about.
pub(super) fn damage(random: &mut Random, body: &mut Vec<u8>) {
    const PIECES: [&[u8]; 16] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b" ",
        b"0",
        b"\\u",
        b"e",
        b"\xef\xbb\xbf",
    ];
    for _ in 0..=random.below(2) {
        let at = random.below(body.len() + 1);
        match random.below(4) {
            0 => body.truncate(at),
            1 => {
                let piece = PIECES[random.below(PIECES.len())];
                body.splice(at..at, piece.iter().copied());
            }
            2 if at < body.len() => {
                body.remove(at);
            }
            _ => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}
