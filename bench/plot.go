package bench

import (
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
)

// scale maps values to a range of pixels.
type scale struct {
	log      bool
	min, max float64 // values; with log above 0
	from, to float64 // pixels; to may be the smaller one
}

func (s *scale) at(v float64) float64 {
	low, high := s.min, s.max
	if s.log {
		v, low, high = math.Log(max(v, s.min)), math.Log(low), math.Log(high)
	}
	share := 0.0
	if high > low {
		share = min(max((v-low)/(high-low), 0), 1)
	}
	return s.from + share*(s.to-s.from)
}

// tick is a mark on an axis.
type tick struct {
	at   float64
	text string
}

// linearTicks are round values from 0 to at least most, about so many.
func linearTicks(most float64, about int) []tick {
	if !finite(most) || most <= 0 {
		most = 1
	}
	raw := most / float64(about)
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * unit
	for _, factor := range []float64{1, 2, 2.5, 5} {
		if factor*unit >= raw*0.999 {
			step = factor * unit
			break
		}
	}
	var ticks []tick
	for i := 0; ; i++ {
		v := float64(i) * step
		ticks = append(ticks, tick{v, compact(v)})
		if v >= most*0.999 {
			return ticks
		}
	}
}

// logTicks are round values that enclose least and most: powers of ten, with their double and fivefold where there are few.
func logTicks(least, most float64) []tick {
	if !finite(least) || !finite(most) || least <= 0 || most < least {
		least, most = 1, 10
	}
	factors := []float64{1}
	if math.Log10(most/least) < 2.5 {
		factors = []float64{1, 2, 5}
	}
	var values []float64
	for e := math.Floor(math.Log10(least)); e <= math.Ceil(math.Log10(most)); e++ {
		for _, factor := range factors {
			values = append(values, factor*math.Pow(10, e))
		}
	}
	first, last := 0, len(values)-1
	for first+1 < len(values) && values[first+1] <= least*1.001 {
		first++
	}
	for last > first+1 && values[last-1] >= most*0.999 {
		last--
	}
	var ticks []tick
	for _, v := range values[first : last+1] {
		ticks = append(ticks, tick{v, compact(v)})
	}
	return ticks
}

// compact is a short text of a round number.
func compact(v float64) string {
	text := strconv.FormatFloat(v, 'g', 6, 64)
	if v >= 1000 {
		text = count(v)
	}
	return text
}

func finite(values ...float64) bool {
	return !slices.ContainsFunc(values, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
}

// drawing is an SVG picture that is being drawn. Its colours are the page's: see the styles of report.html.tmpl.
type drawing struct {
	width, height float64
	text          strings.Builder
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(&d.text, format, args...) }

func (d *drawing) line(class string, x1, y1, x2, y2 float64) {
	d.add(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, px(x1), px(y1), px(x2), px(y2))
}

func (d *drawing) bar(class string, x1, x2, y, height float64, title string) {
	d.add(`<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`,
		class, px(x1), px(y), px(max(x2-x1, 0)), px(height), escape(title))
}

// label writes a text whose start, middle or end is at a place.
func (d *drawing) label(class, anchor string, x, y float64, text string) {
	d.add(`<text class="%s" text-anchor="%s" x="%s" y="%s">%s</text>`, class, anchor, px(x), px(y), escape(text))
}

// curve joins points.
func (d *drawing) curve(style int, title string, points [][2]float64) {
	var path strings.Builder
	for i, p := range points {
		fmt.Fprintf(&path, "%c%s %s", "ML"[min(i, 1)], px(p[0]), px(p[1]))
	}
	d.add(`<path class="curve s%d" d="%s"><title>%s</title></path>`, style, path.String(), escape(title))
}

// marker is a shape of its own for each style.
func (d *drawing) marker(style int, x, y float64) {
	const r = 4.0
	var path string
	at := func(dx, dy float64) string { return px(x+dx*r) + " " + px(y+dy*r) }
	switch style % 5 {
	case 0:
		d.add(`<circle class="mark s%d" cx="%s" cy="%s" r="%s"/>`, style, px(x), px(y), px(r))
		return
	case 1:
		path = "M" + at(-1, -1) + "L" + at(1, -1) + "L" + at(1, 1) + "L" + at(-1, 1) + "Z"
	case 2:
		path = "M" + at(0, -1.2) + "L" + at(1.2, 0.9) + "L" + at(-1.2, 0.9) + "Z"
	case 3:
		path = "M" + at(0, -1.3) + "L" + at(1.3, 0) + "L" + at(0, 1.3) + "L" + at(-1.3, 0) + "Z"
	default:
		path = "M" + at(0, 1.2) + "L" + at(1.2, -0.9) + "L" + at(-1.2, -0.9) + "Z"
	}
	d.add(`<path class="mark s%d" d="%s"/>`, style, path)
}

// svg is the picture, with a description for those who do not see it.
func (d *drawing) svg(class, description string) template.HTML {
	return template.HTML(fmt.Sprintf(`<svg class="%s" viewBox="0 0 %s %s" role="img" aria-label="%s">%s</svg>`,
		class, px(d.width), px(d.height), escape(description), d.text.String()))
}

// px is a coordinate. What is not a number is drawn at 0: the callers leave it out.
func px(v float64) string {
	if !finite(v) {
		v = 0
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

func escape(text string) string { return template.HTMLEscapeString(plain(text)) }

// textWidth is about how wide a text of the pictures' size is: too wide rather than too narrow.
func textWidth(text string) float64 { return 7.4 * float64(len([]rune(text))) }

// Widths of the pictures: every one is made for wide and for narrow pages, so that its text is never scaled down.
const (
	wideWidth   = 940.0
	narrowWidth = 340.0
)

// both is a picture at both widths, of which the page shows one.
func both(draw func(width float64) *drawing, description string) template.HTML {
	return draw(wideWidth).svg("wide", description) + draw(narrowWidth).svg("narrow", description)
}
