// Command render asks a Prometheus what each panel of a Grafana dashboard asks,
// and draws the answers as one SVG file, without Grafana. It fails if an
// expression is refused or has no answer, so that it proves a dashboard too.
//
//	go run ./contrib/grafana/render --prometheus http://127.0.0.1:9090 --from 15m > dashboard.svg
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html"
	"math"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type dashboard struct{ Panels []panel }

type panel struct {
	Type, Title string
	GridPos     struct{ X, Y, W, H float64 }
	Targets     []struct{ Expr, LegendFormat string }
	FieldConfig struct {
		Defaults struct {
			Unit     string
			Mappings []struct {
				Options map[string]struct{ Text, Color string }
			}
			Custom struct{ Stacking struct{ Mode string } }
		}
	}
}

type series struct {
	name   string
	points [][2]float64 // time, value
}

type source struct {
	base     string
	from, to time.Time
	step     time.Duration
	rate     string // what $__rate_interval means
}

func main() {
	file := flag.String("dashboard", "contrib/grafana/v6node.json", "read the dashboard from `FILE`")
	prom := flag.String("prometheus", "http://127.0.0.1:9090", "ask the Prometheus at `URL`")
	back := flag.Duration("from", time.Hour, "begin so long before the end")
	until := flag.Duration("until", 0, "end so long ago")
	rate := flag.String("rate", "1m", "the window of rates")
	flag.Parse()
	to := time.Now().Add(-*until)
	if err := run(*file, source{base: *prom, from: to.Add(-*back), to: to, step: max(time.Second, (*back / 300).Round(time.Second)), rate: *rate}); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(file string, s source) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var d dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	var errs []error
	var body strings.Builder
	bottom := 0.0
	for _, p := range d.Panels {
		var all []series
		for _, t := range p.Targets {
			got, err := s.ask(t.Expr, t.LegendFormat)
			if err == nil && len(got) == 0 {
				err = errors.New("no data")
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("panel %q, %s: %w", p.Title, t.Expr, err))
			}
			all = append(all, got...)
		}
		p.draw(&body, all, s)
		bottom = max(bottom, (p.GridPos.Y+p.GridPos.H)*unitY)
	}
	fmt.Printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" font-family="DejaVu Sans, sans-serif" font-size="11"><rect width="100%%" height="100%%" fill="#111217"/>%s</svg>`+"\n",
		24*unitX+gap, bottom+gap, body.String())
	return errors.Join(errs...)
}

// ask makes a range query (Prometheus HTTP API, /api/v1/query_range).
func (s source) ask(expr, legend string) ([]series, error) {
	expr = strings.NewReplacer("$__rate_interval", s.rate, "$job", ".*", "$instance", ".*").Replace(expr)
	q := url.Values{"query": {expr}, "start": {unix(s.from)}, "end": {unix(s.to)}, "step": {strconv.FormatFloat(s.step.Seconds(), 'f', -1, 64)}}
	resp, err := http.Get(s.base + "/api/v1/query_range?" + q.Encode())
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	var out []series
	for _, r := range answer.Data.Result {
		one := series{name: label.ReplaceAllStringFunc(legend, func(l string) string { return r.Metric[strings.Trim(l, "{} ")] })}
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
				one.points = append(one.points, [2]float64{at, n})
			}
		}
		if len(one.points) > 0 {
			out = append(out, one)
		}
	}
	return out, nil
}

var label = regexp.MustCompile(`{{\s*\w+\s*}}`)

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// The picture's measures.
const (
	unitX, unitY = 60.0, 28.0
	gap          = 8.0
	maxLegend    = 6
)

var colours = []string{"#73bf69", "#5794f2", "#f2cc0c", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#c8f2c2", "#fade2a", "#ca95e5"}

func (p *panel) draw(w *strings.Builder, all []series, s source) {
	x, y := p.GridPos.X*unitX+gap, p.GridPos.Y*unitY+gap
	width, height := p.GridPos.W*unitX-gap, p.GridPos.H*unitY-gap
	say := func(x, y float64, style, text string) {
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" %s>%s</text>`, x, y, style, html.EscapeString(text))
	}
	if p.Type == "row" {
		say(x, y+14, `fill="#ccccdc" font-size="14" font-weight="bold"`, p.Title)
		return
	}
	fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#181b1f" stroke="#2c3235"/>`, x, y, width, height)
	say(x+8, y+16, `fill="#ccccdc" font-size="12"`, p.Title)
	if len(all) == 0 {
		say(x+width/2, y+height/2, `fill="#8e8e9c" text-anchor="middle"`, "No data")
		return
	}
	unit := p.FieldConfig.Defaults.Unit
	if p.Type == "stat" {
		text, colour := format(all[0].points[len(all[0].points)-1][1], unit), colours[0]
		for _, m := range p.FieldConfig.Defaults.Mappings {
			if o, ok := m.Options[text]; ok {
				text, colour = o.Text, map[string]string{"red": "#f2495c"}[o.Color]
				colour = cmp.Or(colour, colours[0])
			}
		}
		say(x+width/2, y+height/2+22, `text-anchor="middle" font-size="34" fill="`+colour+`"`, text)
		return
	}
	left, top, right, low := x+62, y+28, x+width-10, y+height-40
	stacked := p.FieldConfig.Defaults.Custom.Stacking.Mode == "normal"
	base := map[float64]float64{}
	lower := make([]map[float64]float64, len(all))
	most := 0.0
	for i, one := range all {
		lower[i] = map[float64]float64{}
		for _, pt := range one.points {
			if stacked {
				lower[i][pt[0]] = base[pt[0]]
				base[pt[0]] += pt[1]
			}
			most = max(most, pt[1], base[pt[0]])
		}
	}
	top1 := nice(most, unit)
	px := func(t float64) float64 {
		return left + (right-left)*(t-float64(s.from.Unix()))/s.to.Sub(s.from).Seconds()
	}
	py := func(v float64) float64 { return low - (low-top)*v/top1 }
	for i := range 5 {
		v := top1 * float64(i) / 4
		fmt.Fprintf(w, `<path d="M%.1f %.1fH%.1f" stroke="#2c3235"/>`, left, py(v), right)
		say(left-6, py(v)+4, `fill="#8e8e9c" text-anchor="end" font-size="10"`, format(v, unit))
	}
	for i := range 4 {
		at := s.from.Add(s.to.Sub(s.from) * time.Duration(2*i+1) / 8)
		say(px(float64(at.Unix())), low+14, `fill="#8e8e9c" text-anchor="middle" font-size="10"`, at.UTC().Format("15:04"))
	}
	legend := x + 10
	for i, one := range all {
		colour := colours[i%len(colours)]
		var line, area strings.Builder
		flush := func(run [][2]float64) {
			if len(run) == 0 {
				return
			}
			for j, pt := range run {
				c := "L"
				if j == 0 {
					c = "M"
				}
				fmt.Fprintf(&line, "%s%.1f %.1f", c, px(pt[0]), py(pt[1]+lower[i][pt[0]]))
			}
			if len(run) == 1 {
				line.WriteString("h1.5")
			}
			fmt.Fprintf(&area, "M%.1f %.1f", px(run[0][0]), py(lower[i][run[0][0]]))
			for _, pt := range run {
				fmt.Fprintf(&area, "L%.1f %.1f", px(pt[0]), py(pt[1]+lower[i][pt[0]]))
			}
			for j := len(run) - 1; j >= 0; j-- {
				fmt.Fprintf(&area, "L%.1f %.1f", px(run[j][0]), py(lower[i][run[j][0]]))
			}
		}
		start := 0
		for j := range one.points {
			if j > 0 && one.points[j][0]-one.points[j-1][0] > 1.5*s.step.Seconds() {
				flush(one.points[start:j])
				start = j
			}
		}
		flush(one.points[start:])
		opacity := 0.08
		if stacked {
			opacity = 0.3
		}
		fmt.Fprintf(w, `<path d="%s" fill="%s" fill-opacity="%.2f"/><path d="%s" fill="none" stroke="%s"/>`, area.String(), colour, opacity, line.String(), colour)
		name := cmp.Or(one.name, p.Title)
		if i >= maxLegend || legend+float64(7*len(name)) > x+width-110 {
			if legend > 0 {
				say(legend, y+height-8, `fill="#8e8e9c" font-size="10"`, fmt.Sprintf("and %d more", len(all)-i))
			}
			legend = -1e6
			continue
		}
		fmt.Fprintf(w, `<rect x="%.1f" y="%.1f" width="10" height="3" fill="%s"/>`, legend, y+height-12, colour)
		say(legend+14, y+height-8, `fill="#ccccdc" font-size="10"`, name)
		legend += 24 + 6.4*float64(len(name))
	}
}

// nice is a round number at or above the most that is shown.
func nice(v float64, unit string) float64 {
	if v <= 0 {
		return 1
	}
	step := 10.0
	if unit == "bytes" || unit == "Bps" {
		step = 1024
	}
	e := math.Pow(step, math.Floor(math.Log(v)/math.Log(step)))
	for _, m := range []float64{1, 2, 4, 5, 8, 10, 20, 40, 80, 100, 200, 400, 800, 1024} {
		if m*e >= v {
			return m * e
		}
	}
	return v
}

func format(v float64, unit string) string {
	short := func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	switch unit {
	case "percentunit":
		return short(100*v) + " %"
	case "s":
		switch {
		case v == 0:
			return "0"
		case v < 1:
			return short(1000*v) + " ms"
		case v < 120:
			return short(v) + " s"
		}
		return time.Duration(v * 1e9).Round(time.Second).String()
	case "bytes", "Bps":
		i := 0
		for ; v >= 1024 && i < 4; i++ {
			v /= 1024
		}
		text := short(v) + " " + []string{"B", "KiB", "MiB", "GiB", "TiB"}[i]
		if unit == "Bps" {
			text += "/s"
		}
		return text
	}
	if v == math.Trunc(v) && v < 1e6 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return short(v)
}
