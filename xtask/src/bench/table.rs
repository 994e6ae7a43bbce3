//! Tables of text, and figures as people read them.

/// Columns aligned, two blanks between: the first `left` of them to the left, the others, figures, to the right.
pub(super) fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(
                    |(column, (cell, &width))| {
                        if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                    },
                )
                .collect();
            cells.join("  ")
        })
        .collect();
    lines.join("\n")
}

/// A row of words.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A rate with three digits that count: `58.4k`.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        n if n < 1e3 => format!("{n:.0}"),
        n if n < 1e6 => format!("{:.1}k", n / 1e3),
        n => format!("{:.2}M", n / 1e6),
    }
}

pub(super) fn whole(number: f64) -> String {
    format!("{number:.0}")
}

pub(super) fn hundredths(number: f64) -> String {
    format!("{number:.2}")
}

pub(super) fn thousandths(number: f64) -> String {
    format!("{number:.3}")
}

pub(super) fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / f64::from(1 << 20))
}

/// Bytes with the digits of every thousand set apart.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::from(if number <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_figures_right() {
        let rows = [row(["who", "rate"]), row(["nginx", "7"]), row(["a", "12.5k"])];
        assert_eq!(aligned(&rows, 1), "who     rate\nnginx      7\na      12.5k");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!([999.4, 58_412.0, 2_810_000.0].map(rate), ["999", "58.4k", "2.81M"]);
        assert_eq!([0.0, 461.0, 11_600.2, -1_234_567.0].map(grouped), ["0", "461", "11,600", "-1,234,567"]);
    }
}
