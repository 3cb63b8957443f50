package bench

import (
	"fmt"
	"html/template"
	"math"
)

// curves is a picture of lines over a common axis.
type curves struct {
	Description string
	X, Y        string // what is measured
	XTicks      []tick // the axis ends at the first and the last one
	YTicks      []tick
	XLog, YLog  bool
	Marked      bool // every point is, not only a few
	Curves      []curve
}

type curve struct {
	Name   string
	Style  int
	Points [][2]float64
}

const linesHeight = 340.0

// drawCurves draws a picture of lines.
func drawCurves(c curves) template.HTML { return both(c.draw, c.Description) }

func (c curves) draw(width float64) *drawing {
	left := 0.0
	for _, t := range c.YTicks {
		left = max(left, textWidth(t.text)+8)
	}
	last := c.XTicks[len(c.XTicks)-1]
	d := &drawing{width: width, height: linesHeight}
	top, bottom := 30.0, d.height-axisHeight
	x := scale{log: c.XLog, min: c.XTicks[0].at, max: last.at, from: left, to: width - max(textWidth(last.text)/2, 8)}
	y := scale{log: c.YLog, min: c.YTicks[0].at, max: c.YTicks[len(c.YTicks)-1].at, from: bottom, to: top}
	d.label("axis", "start", 0, 12, c.Y)
	for _, t := range c.YTicks {
		d.line("grid", x.from, y.at(t.at), x.to, y.at(t.at))
		d.label("tick", "end", left-6, y.at(t.at)+4, t.text)
	}
	free := math.Inf(-1) // where the next text may begin
	for i, t := range c.XTicks {
		at, half := x.at(t.at), textWidth(t.text)/2
		d.line("grid", at, top, at, bottom)
		ends := i == len(c.XTicks)-1
		if at-half < free || !ends && at+half > x.at(last.at)-textWidth(last.text)/2-4 {
			continue
		}
		d.label("tick", "middle", at, bottom+15, t.text)
		free = at + half + 4
	}
	d.label("axis", "middle", (x.from+x.to)/2, bottom+33, c.X)
	// The first one is drawn last, above the others.
	for i := len(c.Curves) - 1; i >= 0; i-- {
		line := &c.Curves[i]
		var points [][2]float64
		for _, p := range line.Points {
			if finite(p[0], p[1]) && (!c.XLog || p[0] > 0) && (!c.YLog || p[1] > 0) {
				points = append(points, [2]float64{x.at(p[0]), y.at(p[1])})
			}
		}
		if len(points) == 0 {
			continue
		}
		d.curve(line.Style, line.Name, points)
		for i, p := range points {
			if c.Marked || len(points) < 3 || i == len(points)/2 || i == len(points)-1 {
				d.marker(line.Style, p[0], p[1])
			}
		}
	}
	return d
}

// swatch is the sign of a style in a legend.
func swatch(style int) template.HTML {
	d := &drawing{width: 30, height: 12}
	d.line(fmt.Sprintf("curve s%d", style), 1, 6, 29, 6)
	d.marker(style, 15, 6)
	return template.HTML(`<svg class="swatch" viewBox="0 0 30 12" aria-hidden="true">` + d.text.String() + `</svg>`)
}
