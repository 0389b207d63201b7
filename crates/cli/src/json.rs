//! JSON as it is printed.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// From here on a number without a fraction is a floating-point number, 2^64 being the end of the
/// integers.
const BEYOND_INTEGERS: f64 = 18_446_744_073_709_551_616.0;

/// Indented JSON, its whole numbers in decimals however large they are: CWL's runners print them so
/// (CWL v1.2, "Output Parameter Schema" has `double` outputs), and who compares would see `1e+42`
/// as another kind of number.
///
/// # Errors
/// When the value cannot be JSON.
pub(crate) fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Decimals::default()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[derive(Default)]
struct Decimals(PrettyFormatter<'static>);

impl Formatter for Decimals {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value.abs() >= BEYOND_INTEGERS {
            // The fewest digits that tell the number, and zeros.
            write!(writer, "{value}")
        } else {
            self.0.write_f64(writer, value)
        }
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn large_numbers_are_printed_in_decimals() {
        let large = format!("1{}", "0".repeat(42));
        let printed = pretty(&json!([1e42, -1e42])).expect("JSON");
        assert_eq!(printed, format!("[\n  {large},\n  -{large}\n]"));
        // To the last digit, and what is small stays as it is.
        let text = r#"{"a":[31.245270191439438,1.5e-7,18446744073709551615,{},[]],"b":{"c":"d"}}"#;
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(
            pretty(&value).expect("JSON"),
            serde_json::to_string_pretty(&value).expect("JSON")
        );
        assert_eq!(value.to_string(), text);
    }
}
