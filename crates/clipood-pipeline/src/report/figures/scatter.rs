//! Points in the plane: the t-SNE map.

use super::super::svg::{Scale, Svg, fill, range, widest};

/// The points of one dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Cloud {
    /// Name of the dataset.
    pub name: String,
    /// Places, and a title for each.
    pub points: Vec<(f64, f64, String)>,
}

const SIDE: f64 = 520.0;

/// The clouds in the colours of the series; `None` without points.
pub fn draw(title: &str, clouds: &[Cloud]) -> Option<String> {
    let points = || clouds.iter().flat_map(|cloud| &cloud.points);
    let across = range(points().map(|p| p.0))?;
    let up = range(points().map(|p| p.1))?;
    let names: Vec<String> = clouds.iter().map(|cloud| cloud.name.clone()).collect();
    let legend = 40.0 + widest(names.iter().map(String::as_str));
    let mut svg = Svg::new(SIDE + legend, SIDE, title);
    svg.rect("frame", (0.5, 0.5), (SIDE - 1.0, SIDE - 1.0), title);
    let x = Scale::exact(across, (8.0, SIDE - 8.0));
    let y = Scale::exact(up, (SIDE - 8.0, 8.0));
    for (number, cloud) in clouds.iter().enumerate() {
        for (a, b, title) in &cloud.points {
            let class = format!("{} point", fill(number));
            svg.dot(class, (x.at(*a), y.at(*b)), 2.6, title);
        }
    }
    svg.legend((SIDE + 10.0, 14.0), &names);
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_inside() {
        let cloud = Cloud {
            name: "id".into(),
            points: vec![
                (-3.0, 2.0, "a".into()),
                (4.0, -9.0, "b".into()),
                (0.0, 0.0, String::new()),
            ],
        };
        let svg = draw("t", &[cloud]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        for text in svg.split("cx=\"").skip(1) {
            let x: f64 = text.split('"').next().unwrap().parse().unwrap();
            assert!((8.0..=SIDE - 8.0).contains(&x));
        }
        assert!(draw("t", &[]).is_none());
    }
}
