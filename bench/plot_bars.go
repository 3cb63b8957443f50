package bench

import (
	"html/template"
	"strings"
)

// bars is a picture of one bar for each name, from left to right, of one part or several.
type bars struct {
	Description string
	Axis        string // what is measured
	Bars        []namedBar
}

// namedBar is one bar. Its parts are drawn behind each other.
type namedBar struct {
	Name     string
	Parts    []barPart
	Low      float64 // of the whisker; no whisker if both are 0
	High     float64
	Text     string // behind the bar
	Instead  string // of the bar
	Bad      bool   // Instead is bad news
	Emphasis bool
}

type barPart struct {
	Value float64
	Class string
	Title string
}

const (
	barHeight  = 16.0
	barPitch   = 26.0
	axisHeight = 40.0
)

// drawBars draws a picture of bars.
func drawBars(b bars) template.HTML { return both(b.draw, b.Description) }

func (b bars) draw(width float64) *drawing {
	narrow := width < wideWidth
	pitch, left, right := barPitch, 0.0, 0.0
	most := 0.0
	for _, bar := range b.Bars {
		if bar.Instead == "" {
			left = max(left, textWidth(bar.Name)+10)
			right = max(right, textWidth(bar.Text)+12)
			most = max(most, bar.High, bar.total())
		} else {
			left = max(left, textWidth(bar.Name)+10)
		}
	}
	if narrow { // the names stand above the bars
		pitch, left = barPitch+16, 4
	}
	d := &drawing{width: width, height: pitch*float64(len(b.Bars)) + axisHeight}
	about := 6
	if narrow {
		about = 3
	}
	ticks := linearTicks(most, about)
	right = max(right, textWidth(ticks[len(ticks)-1].text)/2)
	x := scale{max: ticks[len(ticks)-1].at, from: left, to: width - right}
	bottom := d.height - axisHeight
	for _, t := range ticks {
		d.line("grid", x.at(t.at), 0, x.at(t.at), bottom)
		anchor := "middle"
		if t.at == 0 && narrow {
			anchor = "start"
		}
		d.label("tick", anchor, x.at(t.at), bottom+15, t.text)
	}
	d.label("axis", "middle", (x.from+x.to)/2, bottom+33, b.Axis)
	for i, bar := range b.Bars {
		top := float64(i) * pitch
		y := top + (barPitch-barHeight)/2
		name := "name"
		if bar.Emphasis {
			name = "name strong"
		}
		if narrow {
			y += 16
			d.label(name, "start", 0, top+16, bar.Name)
		} else {
			d.label(name, "end", left-8, y+12, bar.Name)
		}
		bar.draw(d, &x, y)
	}
	return d
}

func (b *namedBar) total() (sum float64) {
	for _, part := range b.Parts {
		if finite(part.Value) && part.Value > 0 {
			sum += part.Value
		}
	}
	return sum
}

func (b *namedBar) draw(d *drawing, x *scale, y float64) {
	if b.Instead != "" {
		room := int((d.width - x.from) / textWidth("x"))
		class := "instead"
		if b.Bad {
			class = "instead bad"
		}
		d.label(class, "start", x.from+4, y+12, fit(b.Instead, max(room, 2)))
		return
	}
	from := 0.0
	for _, part := range b.Parts {
		if !finite(part.Value) || part.Value <= 0 {
			continue
		}
		d.bar(part.Class, x.at(from), x.at(from+part.Value), y, barHeight, part.Title)
		from += part.Value
	}
	end := x.at(from)
	if finite(b.Low, b.High) && b.High > b.Low {
		middle := y + barHeight/2
		d.line("whisker", x.at(b.Low), middle, x.at(b.High), middle)
		d.line("whisker", x.at(b.Low), middle-4, x.at(b.Low), middle+4)
		d.line("whisker", x.at(b.High), middle-4, x.at(b.High), middle+4)
		end = max(end, x.at(b.High))
	}
	d.label("value", "start", end+6, y+12, strings.TrimSpace(b.Text))
}
