//! Pictures through the public door: the PNG has the promised size and something on it, files follow their extension.

use std::path::Path;

use resvg::tiny_skia::Pixmap;
use weft_plot::{Alignment, LineChart, Panel, PictureKind, PlotError, Series, alignment, line_chart, png, write};

fn chart() -> String {
    let series = Series::new("training", (0..50).map(|x| (f64::from(x), 50.0 / (f64::from(x) + 10.0))).collect());
    line_chart(&LineChart::new("step", vec![Panel::new("loss", vec![series])]).titled("Title"))
}

fn map() -> String {
    let map = Alignment::new(["the", "house"], ["das", "Haus"], vec![0.9, 0.1, 0.2, 0.8]);
    alignment(&map.expect("two by two weights"))
}

/// The width and height that the SVG text states.
fn stated_size(svg: &str) -> (f32, f32) {
    let value = |name: &str| {
        let start = svg.find(&format!(" {name}=\"")).expect("the svg element has a size") + name.len() + 3;
        svg[start..].split('"').next().and_then(|text| text.parse().ok()).expect("the size is a number")
    };
    (value("width"), value("height"))
}

#[test]
fn pngs_have_the_size_of_the_svg_times_the_scale_and_are_not_blank() {
    for svg in [chart(), map()] {
        let (width, height) = stated_size(&svg);
        for scale in [0.5f32, 1.0, 2.0] {
            let pixels = Pixmap::decode_png(&png(&svg, scale).unwrap()).unwrap();
            assert_eq!(
                (pixels.width(), pixels.height()),
                ((width * scale).ceil() as u32, (height * scale).ceil() as u32)
            );
            let shades = |wanted: fn(u8, u8, u8) -> bool| {
                pixels.pixels().iter().filter(|pixel| wanted(pixel.red(), pixel.green(), pixel.blue())).count()
            };
            let all = pixels.pixels().len();
            let (white, blue) =
                (shades(|r, g, b| r == 255 && g == 255 && b == 255), shades(|r, _, b| b > 150 && r < 100));
            let grey = shades(|r, g, b| r < 190 && r.abs_diff(g) < 12 && g.abs_diff(b) < 16);
            assert!(white > all / 4 && white < all, "{white} white pixels of {all}");
            assert!(blue > 50, "{blue} pixels of the blue line or cells");
            assert!(grey > 20, "{grey} pixels of text");
        }
    }
}

#[test]
fn letters_are_drawn_by_the_fonts_of_the_crate() {
    let with = |label: &str| {
        let map = Alignment::new([label], [""], vec![0.0]).unwrap();
        let pixels = Pixmap::decode_png(&png(&alignment(&map), 1.0).unwrap()).unwrap();
        pixels.pixels().iter().filter(|pixel| pixel.red() < 110).count()
    };
    let none = with("");
    for label in ["latin", "Ελλην", "кирил", "łőşğ", "▁↵→□", "👍"] {
        assert!(with(label) > none, "{label} left no ink");
    }
}

#[test]
fn the_extension_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, png) = (folder.path().join("a.svg"), folder.path().join("b.PNG"));
    write(&svg, &map()).unwrap();
    write(&png, &map()).unwrap();
    assert_eq!(std::fs::read_to_string(svg).unwrap(), map());
    let pixels = Pixmap::decode_png(&std::fs::read(png).unwrap()).unwrap();
    assert_eq!(pixels.width() as f32, 2.0 * stated_size(&map()).0);
    assert_eq!(PictureKind::of(Path::new("x.SVG")).unwrap(), PictureKind::Svg);
}

#[test]
fn errors_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let error = write("curve.jpg", &map()).unwrap_err();
    assert_eq!(error.to_string(), "curve.jpg: pictures are written as .svg or .png, not .jpg");
    assert_eq!(error.hint().unwrap(), "try curve.svg or curve.png");
    let error = write("curve", &map()).unwrap_err();
    assert_eq!(error.to_string(), "curve: the file name has no extension, so the kind of picture is unknown");
    let missing = folder.path().join("missing").join("curve.svg");
    let error = write(&missing, &map()).unwrap_err();
    assert!(matches!(&error, PlotError::Write { path, .. } if *path == missing));
    assert!(error.hint().unwrap().ends_with("missing") && std::error::Error::source(&error).is_some());
    assert!(matches!(png("not an svg", 1.0), Err(PlotError::Svg(_))));
    assert!(matches!(png(&map(), 1e6), Err(PlotError::TooLarge { .. })));
    assert!(matches!(png(&map(), f32::NAN), Err(PlotError::TooLarge { .. })));
}
