//! Walks a TOML document by hand, so that every unknown key and every wrong type is found in one go
//! and each knows its place. serde would stop at the first.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Place, Report};

/// A value and where it stands.
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Its place.
    pub(super) place: Place,
}

/// Something that one TOML value can be read as. `None` after a fault was reported.
pub(super) trait Value: Sized {
    /// Reads it.
    fn read(value: &Spanned<DeValue<'_>>, place: Place, report: &mut Report<'_>) -> Option<Self>;

    /// Adds the dotted paths of all keys that it may hold.
    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>);
}

/// A field of a table: optional, or a list of tables.
pub(super) trait Field: Sized {
    /// Reads the field `key` of a table.
    fn read(table: &DeTable<'_>, of: &Place, key: &str, report: &mut Report<'_>) -> Self;

    /// As [`Value::keys`].
    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>);
}

impl<V: Value> Field for Option<V> {
    fn read(table: &DeTable<'_>, of: &Place, key: &str, report: &mut Report<'_>) -> Self {
        let value = table.get(key)?;
        let place = Place { at: value.span().start, key: of.below(key).key };
        let read = V::read(value, place.clone(), report);
        if read.is_none() {
            report.broken(of, &place);
        }
        read
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        V::keys(path, out);
    }
}

impl<V: Value> Field for Vec<V> {
    fn read(table: &DeTable<'_>, of: &Place, key: &str, report: &mut Report<'_>) -> Self {
        let Some(value) = table.get(key) else { return Self::new() };
        let place = Place { at: value.span().start, key: of.below(key).key };
        let Some(list) = value.get_ref().as_array() else {
            report.broken(of, &place);
            return wrong_type(value, &place, "a list of tables", report).unwrap_or_default();
        };
        let mut read = Self::new();
        for entry in list {
            let place = Place { at: entry.span().start, key: place.key.clone() };
            match V::read(entry, place.clone(), report) {
                Some(entry) => read.push(entry),
                None => report.broken(of, &place),
            }
        }
        read
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        V::keys(path, out);
    }
}

impl Value for At<String> {
    fn read(value: &Spanned<DeValue<'_>>, place: Place, report: &mut Report<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some(text) => Some(Self { value: text.to_owned(), place }),
            None => wrong_type(value, &place, "a string", report),
        }
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        out.push(path.to_owned());
    }
}

impl Value for At<bool> {
    fn read(value: &Spanned<DeValue<'_>>, place: Place, report: &mut Report<'_>) -> Option<Self> {
        match value.get_ref().as_bool() {
            Some(value) => Some(Self { value, place }),
            None => wrong_type(value, &place, "true or false", report),
        }
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        out.push(path.to_owned());
    }
}

impl Value for At<u64> {
    fn read(value: &Spanned<DeValue<'_>>, place: Place, report: &mut Report<'_>) -> Option<Self> {
        let Some(integer) = value.get_ref().as_integer() else {
            return wrong_type(value, &place, "a whole number", report);
        };
        if let Ok(value) = u64::from_str_radix(integer.as_str(), integer.radix()) {
            return Some(Self { value, place });
        }
        report.fault(
            &place,
            "not a whole number from 0 to 2^64-1",
            "write a smaller, positive one",
        );
        None
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        out.push(path.to_owned());
    }
}

impl Value for At<Vec<At<String>>> {
    fn read(value: &Spanned<DeValue<'_>>, place: Place, report: &mut Report<'_>) -> Option<Self> {
        let Some(list) = value.get_ref().as_array() else {
            return wrong_type(value, &place, "a list of strings", report);
        };
        let mut read = Vec::new();
        let mut whole = true;
        for entry in list {
            let place = Place { at: entry.span().start, key: place.key.clone() };
            match At::<String>::read(entry, place, report) {
                Some(entry) => read.push(entry),
                None => whole = false,
            }
        }
        whole.then_some(Self { value: read, place })
    }

    #[cfg(test)]
    fn keys(path: &str, out: &mut Vec<String>) {
        out.push(path.to_owned());
    }
}

/// The table in `value`, after every key that is not in `known` was reported.
pub(super) fn table<'v, 'i>(
    value: &'v DeValue<'i>,
    place: &Place,
    known: &[&str],
    report: &mut Report<'_>,
) -> Option<&'v DeTable<'i>> {
    let Some(table) = value.as_table() else {
        let what = format!("is {}, not a table", article(value));
        report.fault(place, what, "write it as a [table]");
        return None;
    };
    for key in table.keys() {
        if !known.contains(&key.get_ref().as_ref()) {
            // Quoted and escaped unless it is a bare key: a line of our output stays one line.
            let bare =
                key.get_ref().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            let name =
                if bare { key.get_ref().to_string() } else { format!("{:?}", key.get_ref()) };
            let place = Place { at: key.span().start, key: place.below(&name).key };
            let cure = format!("remove it, or use one of: {}", known.join(", "));
            report.fault(&place, "unknown key", cure);
        }
    }
    Some(table)
}

fn wrong_type<T>(
    value: &Spanned<DeValue<'_>>,
    place: &Place,
    wanted: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    report.fault(place, format!("is {}", article(value.get_ref())), format!("write {wanted}"));
    None
}

fn article(value: &DeValue<'_>) -> String {
    let name = value.type_str();
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name}")
}
