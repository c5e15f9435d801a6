//! Fictitious scanned papers: small valid PDFs of one grey picture each, and an archive of blank pages.
//! Every page says that it is fictitious; the same number gives the same bytes.

use posthouse_protocol::problem::{Code, Problem};
use std::io::Write;
use std::path::Path;

/// Scans in folders by district, an empty folder, a link within, and one link that leaves the folder.
pub(super) fn create(folder: &Path) -> Result<(), Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
    for number in 0..SCANS {
        let district = DISTRICTS.get(number % DISTRICTS.len()).copied().unwrap_or_default();
        let place = folder.join(district);
        std::fs::create_dir_all(&place).map_err(failed)?;
        let page = page(number, SCAN_WIDTH, SCAN_HEIGHT);
        std::fs::write(place.join(format!("演示扫描件-{number:04}.pdf")), page).map_err(failed)?;
    }
    std::fs::create_dir_all(folder.join("待归档")).map_err(failed)?;
    std::os::unix::fs::symlink(format!("{}/演示扫描件-0000.pdf", DISTRICTS[0]), folder.join("最新.pdf")).map_err(failed)
}

/// A few large files whose transfer takes longer than a withdrawal.
pub(super) fn create_archive(folder: &Path) -> Result<(), Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
    std::fs::create_dir_all(folder).map_err(failed)?;
    for number in 0..ARCHIVES {
        let page = page(10_000 + number, ARCHIVE_WIDTH, ARCHIVE_HEIGHT);
        std::fs::write(folder.join(format!("演示档案-{number}.pdf")), page).map_err(failed)?;
    }
    Ok(())
}

/// One page with one picture of noise, as a PDF that any viewer opens.
fn page(number: usize, width: usize, height: usize) -> Vec<u8> {
    let mut picture = vec![0; width * height];
    noise(number as u64 + 1, &mut picture);
    let drawing = format!(
        "q 400 0 0 400 100 200 cm /Picture Do Q BT /Face 24 Tf 60 720 Td (FICTITIOUS - demonstration scan {number:04}) Tj ET"
    );
    let mut pdf = Pdf::default();
    pdf.object(b"<< /Type /Catalog /Pages 2 0 R >>");
    pdf.object(b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>");
    pdf.object(
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
          /Resources << /XObject << /Picture 5 0 R >> /Font << /Face 6 0 R >> >> >>",
    );
    pdf.stream("", drawing.as_bytes());
    let kind = format!(
        "/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray /BitsPerComponent 8 "
    );
    pdf.stream(&kind, &picture);
    pdf.object(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>");
    pdf.end()
}

#[derive(Default)]
struct Pdf {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Pdf {
    fn object(&mut self, body: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(b"%PDF-1.4\n");
        }
        self.offsets.push(self.bytes.len());
        let head = format!("{} 0 obj\n", self.offsets.len());
        for part in [head.as_bytes(), body, b"\nendobj\n"] {
            self.bytes.extend_from_slice(part);
        }
    }
    fn stream(&mut self, keys: &str, content: &[u8]) {
        let mut body = format!("<< {keys}/Length {} >>\nstream\n", content.len()).into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\nendstream");
        self.object(&body);
    }
    fn end(mut self) -> Vec<u8> {
        let start = self.bytes.len();
        let count = self.offsets.len() + 1;
        let mut table = format!("xref\n0 {count}\n0000000000 65535 f \n");
        for offset in &self.offsets {
            table.push_str(&format!("{offset:010} 00000 n \n"));
        }
        table.push_str(&format!("trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"));
        // Writing into memory cannot fail.
        let _ = self.bytes.write_all(table.as_bytes());
        self.bytes
    }
}

/// Grey noise that no compression shrinks much, the same for the same seed (xorshift).
fn noise(seed: u64, out: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for bytes in out.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        bytes.copy_from_slice(word.get(..bytes.len()).unwrap_or(&word));
    }
}

pub(super) const SCANS: usize = 120;
const DISTRICTS: [&str; 4] = ["雁塔区", "碑林区", "莲湖区", "未央区"];
const SCAN_WIDTH: usize = 480;
const SCAN_HEIGHT: usize = 640;
const ARCHIVES: usize = 2;
const ARCHIVE_WIDTH: usize = 6000;
const ARCHIVE_HEIGHT: usize = 8000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_is_a_pdf_whose_table_points_at_its_objects_and_which_says_that_it_is_fictitious() {
        let page = page(7, 8, 4);
        let text = String::from_utf8_lossy(&page);
        assert!(page.starts_with(b"%PDF-1.4\n") && page.ends_with(b"%%EOF\n"));
        assert!(text.contains("FICTITIOUS"));
        let mut pdf = Pdf::default();
        pdf.object(b"a");
        pdf.object(b"b");
        let offsets = pdf.offsets.clone();
        let bytes = pdf.end();
        for (number, offset) in offsets.iter().enumerate() {
            assert!(bytes[*offset..].starts_with(format!("{} 0 obj", number + 1).as_bytes()));
        }
        let start = bytes.windows(9).position(|w| w == b"startxref").unwrap();
        let table: usize = String::from_utf8_lossy(&bytes[start + 10..]).lines().next().unwrap().parse().unwrap();
        assert!(bytes[table..].starts_with(b"xref"));
    }

    #[test]
    fn the_same_scan_has_the_same_bytes_and_another_has_others() {
        assert_eq!(page(1, 64, 64), page(1, 64, 64));
        assert_ne!(page(1, 64, 64), page(2, 64, 64));
    }
}
