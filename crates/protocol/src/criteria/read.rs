//! Reads an expression with the `cel` crate, and holds it to the names and kinds that there are.
//!
//! Only its parser is used. Its interpreter knows neither exact amounts nor facts that are not known, and has no limit of
//! its own to what an evaluation may cost.

use alloy_primitives::{Address, B256};
use cel::{
    common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators},
    parser::{ParseErrors, Parser},
};

use super::{
    ExpressionError, attribute,
    expression::{Expression, How, Kind, Name, Node, Operand, Part, Sign, Value},
    scan,
};
use crate::{
    amount::{Amount, ParseAmountError, Rate, Token},
    pod::{names, tree::closest},
};

/// How often the parser may enter an expression within one: by brackets alone, of which there are few.
const PARSER_DEPTH: u16 = 32;

impl Expression {
    /// Reads an expression. Its prices and amounts are in whole tokens; a price is read as `price.max` is.
    ///
    /// # Errors
    /// What is wrong with it: its size, its form, a name or a kind.
    pub fn parse(text: &str, token: &Token) -> Result<Self, ExpressionError> {
        let parts = scan::parts(text)?;
        let part = |part: scan::Part<'_>| {
            let parsed = Parser::new()
                .max_recursion_depth(PARSER_DEPTH)
                .error_recovery_limit(0)
                .parse_with_source_info(part.text);
            let (tree, places) = parsed.map_err(|errors| unreadable(&part, &errors))?;
            let node = Reader { part: &part, places, token }.node(&tree)?;
            Ok(Part { text: part.text.to_owned(), node })
        };
        parts.into_iter().map(part).collect::<Result<_, _>>().map(Self)
    }
}

/// What the parser says is a list of tokens that its grammar knows; where it stopped is what helps.
fn unreadable(part: &scan::Part<'_>, errors: &ParseErrors) -> ExpressionError {
    let first = errors.errors.first();
    let (line, column) = first.map_or((1, 1), |error| error.pos);
    let skipped = part.text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0));
    let before = skipped.map(str::len).sum::<usize>();
    let within = before + usize::try_from(column - 1).unwrap_or(0);
    let rest = part.text.get(within..).unwrap_or_default().trim();
    let what = match rest.chars().take(20).collect::<String>() {
        rest if rest.is_empty() => "it ends where more is expected".into(),
        rest => format!("it cannot be read from {rest:?} on"),
    };
    ExpressionError { at: part.start + within.min(part.text.len()) + 1, what }
}

/// Makes a condition of a part's tree.
struct Reader<'a> {
    part: &'a scan::Part<'a>,
    places: SourceInfo,
    token: &'a Token,
}

/// One side of a comparison before the other is known.
enum Side<'a> {
    Name(Name),
    Literal(&'a IdedExpr, &'a LiteralValue),
}

impl Reader<'_> {
    /// An error at an expression's place.
    fn error(&self, at: &IdedExpr, what: impl Into<String>) -> ExpressionError {
        let (start, _end) = self.places.offset_for(at.id).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or(0);
        ExpressionError { at: self.part.start + start + 1, what: what.into() }
    }

    fn node(&self, at: &IdedExpr) -> Result<Node, ExpressionError> {
        match &at.expr {
            Expr::Literal(LiteralValue::Boolean(truth)) => Ok(Node::Always(*truth.inner())),
            Expr::Call(call) => self.call(at, call),
            Expr::Ident(name) => {
                let name = self.name(at, name)?;
                let (text, kind) = (name.as_str(), name.kind());
                let what = match kind == Kind::Flag {
                    true => format!("{text} is a call; write {text}(…)"),
                    false => {
                        let (is, example) = (kind.as_str(), kind.example());
                        format!("{text} is {is}; compare it, as in {text} == {example}")
                    }
                };
                Err(self.error(at, what))
            }
            Expr::Comprehension(_) => {
                Err(self.error(at, "there are no loops; write each case out"))
            }
            Expr::Unspecified
            | Expr::List(_)
            | Expr::Literal(_)
            | Expr::Map(_)
            | Expr::Select(_)
            | Expr::Struct(_) => {
                Err(self.error(at, "a condition is wanted here, as in region == \"eu-west\""))
            }
        }
    }

    fn call(&self, at: &IdedExpr, call: &CallExpr) -> Result<Node, ExpressionError> {
        let args = call.args.as_slice();
        match (call.func_name.as_str(), &call.target, args) {
            (operators::LOGICAL_NOT, None, [inner]) => Ok(Node::Not(Box::new(self.node(inner)?))),
            (operators::LOGICAL_AND, None, [left, right]) => {
                Ok(Node::Both(Box::new([self.node(left)?, self.node(right)?])))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                Ok(Node::Either(Box::new([self.node(left)?, self.node(right)?])))
            }
            (operators::IN, None, [name, list]) => self.member(name, list),
            (sign, None, [left, right]) if Sign::of(sign).is_some() => {
                self.comparison(at, sign, left, right)
            }
            ("attested", None, args) => self.attested(args),
            ("vouched", None, args) => self.vouched(at, args),
            (how, Some(of), args) => self.question(at, how, of, args),
            (other, None, _args) => Err(self.unknown(at, other, &["attested", "vouched"])),
        }
    }

    /// A call that there is not; what was written stands in front of its bracket.
    fn unknown(&self, at: &IdedExpr, name: &str, known: &[&str]) -> ExpressionError {
        let error = self.error(at, "");
        let what = match (Name::ALL.iter().find(|known| known.as_str() == name), is_word(name)) {
            (Some(name), _) => format!("{name} is no call; compare it", name = name.as_str()),
            (None, true) => format!("no such call {name}{}", meant(name, known)),
            (None, false) => "this has no place in an expression".into(),
        };
        ExpressionError { at: error.at.saturating_sub(name.len()).max(1), what }
    }

    fn name(&self, at: &IdedExpr, text: &str) -> Result<Name, ExpressionError> {
        let known = Name::ALL.map(Name::as_str);
        let found = Name::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| {
            let quotes = match closest(text, known.iter().copied()) {
                Some(_) => "",
                None => "; a text is in quotes",
            };
            self.error(at, format!("no such name {text}{}{quotes}", meant(text, &known)))
        })
    }

    fn side<'a>(&self, at: &'a IdedExpr) -> Result<Side<'a>, ExpressionError> {
        match &at.expr {
            Expr::Ident(text) => match self.name(at, text)? {
                name if name.kind() == Kind::Flag => {
                    let text = name.as_str();
                    Err(self.error(at, format!("{text} is a call; write {text}(…) alone")))
                }
                name => Ok(Side::Name(name)),
            },
            Expr::Literal(literal) => Ok(Side::Literal(at, literal)),
            Expr::Call(call) if Sign::of(&call.func_name).is_some() => {
                Err(self.error(at, "compare two things at a time; join comparisons with &&"))
            }
            Expr::Call(_)
            | Expr::Comprehension(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Select(_)
            | Expr::Struct(_)
            | Expr::Unspecified => Err(self.error(
                at,
                "a name or a value is wanted here; a condition stands alone, or with ! in front",
            )),
        }
    }

    fn comparison(
        &self,
        at: &IdedExpr,
        sign: &str,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Result<Node, ExpressionError> {
        let sign = Sign::of(sign).unwrap_or(Sign::Equal);
        let (name, sign, with) = match (self.side(left)?, self.side(right)?) {
            (Side::Name(name), Side::Literal(at, literal)) => {
                (name, sign, Operand::Value(self.value(at, literal, name)?))
            }
            (Side::Literal(at, literal), Side::Name(name)) => {
                (name, sign.turned(), Operand::Value(self.value(at, literal, name)?))
            }
            (Side::Name(one), Side::Name(other)) if one.kind() == other.kind() => {
                (one, sign, Operand::Name(other))
            }
            (Side::Name(one), Side::Name(other)) => {
                let (a, b) = (one.kind().as_str(), other.kind().as_str());
                let (one, other) = (one.as_str(), other.as_str());
                return Err(self.error(at, format!("{one} is {a} and {other} is {b}")));
            }
            (Side::Literal(..), Side::Literal(..)) => {
                return Err(
                    self.error(at, "neither side is a name; this is the same for everybody")
                );
            }
        };
        let ordered = !matches!(sign, Sign::Equal | Sign::Unequal);
        if ordered && name.kind() == Kind::Address {
            return Err(self.error(at, "addresses are equal or not; write == or !="));
        }
        Ok(Node::Compare { name, sign, with })
    }

    fn member(&self, name: &IdedExpr, list: &IdedExpr) -> Result<Node, ExpressionError> {
        let Side::Name(of) = self.side(name)? else {
            return Err(self.error(name, "a name is wanted in front of in"));
        };
        let Expr::List(values) = &list.expr else {
            let example = of.kind().example();
            return Err(self.error(list, format!("a list is wanted behind in: [{example}]")));
        };
        let value = |at: &IdedExpr| match &at.expr {
            Expr::Literal(literal) => self.value(at, literal, of),
            Expr::Call(_)
            | Expr::Comprehension(_)
            | Expr::Ident(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Select(_)
            | Expr::Struct(_)
            | Expr::Unspecified => Err(self.error(at, "a list is of values")),
        };
        let list = values.elements.iter().map(value).collect::<Result<_, _>>()?;
        Ok(Node::In { name: of, list })
    }

    fn question(
        &self,
        at: &IdedExpr,
        how: &str,
        of: &IdedExpr,
        args: &[IdedExpr],
    ) -> Result<Node, ExpressionError> {
        let Some((_, known)) = How::ALL.into_iter().find(|(name, _)| *name == how) else {
            return Err(self.unknown(at, how, &How::ALL.map(|(name, _)| name)));
        };
        let Expr::Ident(name) = &of.expr else {
            return Err(self.error(of, format!("write region.{how}(\"eu\")")));
        };
        let name = self.name(of, name)?;
        if name.kind() != Kind::Text {
            let (name, kind) = (name.as_str(), name.kind().as_str());
            return Err(self.error(of, format!("{name} is {kind}, and {how} asks about a text")));
        }
        match args {
            [arg] => {
                let Value::Text(with) = self.argument(arg, name)? else {
                    return Err(self.error(arg, "a text is wanted here"));
                };
                Ok(Node::Text { name, how: known, with })
            }
            _ => Err(self.error(at, format!("{how} takes one text"))),
        }
    }

    fn argument(&self, at: &IdedExpr, name: Name) -> Result<Value, ExpressionError> {
        match self.side(at)? {
            Side::Literal(at, literal) => self.value(at, literal, name),
            Side::Name(_) => Err(self.error(at, "a value is wanted here, in quotes")),
        }
    }

    fn attested(&self, args: &[IdedExpr]) -> Result<Node, ExpressionError> {
        match args {
            [] => Ok(Node::Attested(None)),
            [arg] => {
                let text = self.quoted(arg)?;
                let measurement = text.parse::<B256>().ok().filter(|_| text.starts_with("0x"));
                let measurement = measurement.ok_or_else(|| {
                    self.error(
                        arg,
                        format!(
                            "{text:?} is no measurement (0x and 64 hexadecimal digits); a listing does not say by which \
                             hardware, so write attested(), and have `roadstead attest` find out"
                        ),
                    )
                })?;
                Ok(Node::Attested(Some(measurement)))
            }
            [_, other, ..] => Err(self.error(other, "attested takes one measurement, or nothing")),
        }
    }

    fn vouched(&self, at: &IdedExpr, args: &[IdedExpr]) -> Result<Node, ExpressionError> {
        let (name, auditor) = match args {
            [name] => (self.quoted(name)?, None),
            [name, auditor] => (self.quoted(name)?, Some(self.address(auditor)?)),
            _ => {
                let what =
                    "write vouched(\"gdpr\", \"0x…\"): an attribute, and who has to vouch for it";
                return Err(self.error(at, what));
            }
        };
        if name.is_empty() {
            return Err(self.error(at, "the attribute is empty"));
        }
        Ok(Node::Vouched { attribute: attribute(&name), name, auditor })
    }

    fn quoted(&self, at: &IdedExpr) -> Result<String, ExpressionError> {
        if let Expr::Literal(LiteralValue::String(text)) = &at.expr {
            return Ok(text.inner().to_owned());
        }
        Err(self.error(at, "a text in quotes is wanted here"))
    }

    fn address(&self, at: &IdedExpr) -> Result<Address, ExpressionError> {
        let text = self.quoted(at)?;
        names::address(&text).map_err(|what| self.error(at, what))
    }

    /// A literal as the kind that `name` is of.
    fn value(
        &self,
        at: &IdedExpr,
        literal: &LiteralValue,
        name: Name,
    ) -> Result<Value, ExpressionError> {
        let kind = name.kind();
        let number = matches!(
            literal,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_)
        );
        let wrong = || {
            let (name, example) = (name.as_str(), kind.example());
            let what = format!("{name} is {}; write it as in {example}", kind.as_str());
            self.error(at, what)
        };
        let amount = |err: ParseAmountError| self.error(at, err.to_string());
        match (kind, literal) {
            (Kind::Text, LiteralValue::String(text)) => {
                let text = text.inner();
                match text.to_lowercase() {
                    lower if lower == text => Ok(Value::Text(lower)),
                    lower => Err(self
                        .error(at, format!("{} is in lower case; write {lower:?}", name.as_str()))),
                }
            }
            (Kind::Address, _) => self.address(at).map(Value::Address),
            (Kind::Price, _) if number => {
                let written = self.written(at)?;
                let rate = Rate::parse(&format!("{written}/h"), self.token);
                rate.map(Value::Rate).map_err(amount)
            }
            (Kind::Tokens, _) if number => {
                Amount::parse(self.written(at)?, self.token).map(Value::Amount).map_err(amount)
            }
            (Kind::Count | Kind::Seconds, _) if number => {
                let written = self.written(at)?;
                written.parse().map(Value::Whole).map_err(|_err| {
                    self.error(at, format!("{written:?} is no whole number below 2^64"))
                })
            }
            (_, _) => Err(wrong()),
        }
    }

    /// A number as it is written: the parser makes it binary, and 0.02 is no binary number.
    fn written(&self, at: &IdedExpr) -> Result<&str, ExpressionError> {
        let place = self.places.offset_for(at.id);
        let text = place.and_then(|(start, end)| {
            let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
            self.part.text.get(start..=end)
        });
        let plain = |text: &&str| {
            text.starts_with(|first: char| first.is_ascii_digit())
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        };
        text.filter(plain)
            .ok_or_else(|| self.error(at, "write a number in plain digits, as in 0.02 or 12"))
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// What there is in place of a name that there is not.
fn meant(text: &str, known: &[&str]) -> String {
    match closest(text, known.iter().copied()) {
        Some(close) => format!("; did you mean {close}?"),
        None => format!("; there are {}", known.join(", ")),
    }
}
