//! Reading the id that opens a tool call.

/// What a call's id tells: `functions.NAME:IDX`, and the less perfect forms models write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A name and, if it had a number, the id in its native form.
    Named {
        /// The function.
        name: String,
        /// `functions.NAME:IDX`; empty without a number.
        id: String,
    },
    /// No name: at most a number. The tool must be told by other means.
    Bare,
    /// Not an id at all.
    Garbage,
}

/// Longest name of a function that is believed.
const MAX_NAME: usize = 256;

impl Header {
    /// Reads `functions.NAME:IDX`, `NAME:IDX`, `NAME`, `IDX`; white space around it is of no meaning.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        let text = text.strip_prefix("functions.").unwrap_or(text);
        let (name, index) = match text.rsplit_once(':') {
            Some((name, index)) if is_number(index) => (name, Some(index)),
            _ if is_number(text) => ("", Some(text)),
            _ => (text, None),
        };
        if name.is_empty() {
            return Self::Bare;
        }
        let is_name_char = |c: char| !c.is_whitespace() && !c.is_control() && !"{}[]\"'`<>,;:".contains(c);
        if name.len() > MAX_NAME || !name.chars().all(is_name_char) {
            return Self::Garbage;
        }
        let id = index.map_or_else(String::new, |index| format!("functions.{name}:{index}"));
        Self::Named { name: name.to_owned(), id }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::Header;

    #[test]
    fn reads_every_form_of_an_id() {
        let named = |name: &str, id: &str| Header::Named { name: name.into(), id: id.into() };
        let cases = [
            ("functions.get_weather:0", named("get_weather", "functions.get_weather:0")),
            (" functions.a.b-c:12\n", named("a.b-c", "functions.a.b-c:12")),
            ("search:3", named("search", "functions.search:3")),
            ("functions.search", named("search", "")),
            ("搜索:1", named("搜索", "functions.搜索:1")),
            ("7", Header::Bare),
            (":7", Header::Bare),
            ("functions.:7", Header::Bare),
            ("functions.7", Header::Bare),
            ("", Header::Bare),
            ("search:", Header::Garbage),
            ("let me call it", Header::Garbage),
            ("{\"name\": 1}", Header::Garbage),
        ];
        for (text, header) in cases {
            assert_eq!(Header::parse(text), header, "{text}");
        }
    }
}
