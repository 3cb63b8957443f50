package http

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/evently/evently"
	"github.com/evently/evently/http/apitest"
)

// elsewhere finds what would make a browser ask another host.
var elsewhere = regexp.MustCompile(`(?i)(src|href|url|action)\s*[=:(]\s*["']?\s*(https?:)?//`)

func TestDocs_LoadNothingFromElsewhere(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	page := w.do(t, http.MethodGet, "/docs", "")
	if page.status != http.StatusOK || page.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("status %d, Content-Type %q", page.status, page.header.Get("Content-Type"))
	}
	policy := page.header.Values("Content-Security-Policy")
	if len(policy) != 1 || !strings.Contains(policy[0], "default-src 'none'") {
		t.Fatalf("Content-Security-Policy is %q", policy)
	}
	for _, hole := range []string{"unsafe", "http", "*"} {
		if strings.Contains(policy[0], hole) {
			t.Errorf("Content-Security-Policy %q has %s", policy[0], hole)
		}
	}
	if found := elsewhere.Find(page.body); found != nil {
		t.Errorf("the page has %s", found)
	}
	html := string(page.body)
	if inline := regexp.MustCompile(`<script>|<style|\s(on\w+|style)=`).FindString(html); inline != "" {
		t.Errorf("the page has %s, which its policy forbids", inline)
	}

	parts := regexp.MustCompile(`(?:src|href)="(docs/[^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(parts) != 3 {
		t.Fatalf("the page has the parts %q, want a style sheet and two scripts", parts)
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	for _, part := range parts {
		got := w.do(t, http.MethodGet, "/"+part[1], "")
		extension := part[1][strings.LastIndexByte(part[1], '.'):]
		if got.status != http.StatusOK || got.header.Get("Content-Type") != types[extension] || len(got.body) == 0 {
			t.Errorf("%s: status %d, Content-Type %q, %d bytes", part[1], got.status, got.header.Get("Content-Type"), len(got.body))
		}
		if extension == ".css" {
			if found := elsewhere.Find(got.body); found != nil || strings.Contains(string(got.body), "@import") {
				t.Errorf("%s has %s or an @import", part[1], found)
			}
		}
	}
	initialize := w.do(t, http.MethodGet, "/docs/init.js", "")
	for _, want := range []string{`url: "openapi.json"`, "validatorUrl: null"} { // unset, the page would ask a validator on the internet
		if !strings.Contains(string(initialize.body), want) {
			t.Errorf("init.js has no %s", want)
		}
	}
}

func TestDocs_ComeWithTheirLicences(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	for _, name := range []string{"LICENSE", "NOTICE", "swagger-ui-bundle.js.LICENSE.txt"} {
		got := w.do(t, http.MethodGet, "/docs/"+name, "")
		if got.status != http.StatusOK || got.header.Get("Content-Type") != "text/plain; charset=utf-8" || len(got.body) == 0 {
			t.Errorf("%s: status %d, Content-Type %q, %d bytes", name, got.status, got.header.Get("Content-Type"), len(got.body))
		}
	}
}

func TestDocs_AreCached(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	for _, path := range []string{"/docs", "/docs/swagger-ui.css"} {
		tag := w.do(t, http.MethodHead, path, "").header.Get("ETag")
		if again := w.do(t, http.MethodGet, path, "", "If-None-Match", tag); again.status != http.StatusNotModified {
			t.Errorf("%s again: status %d, want 304", path, again.status)
		}
	}
}

func TestDocs_OtherFilesAreNotFound(t *testing.T) {
	w := newSite(t, nil)
	w.client = apitest.NewClient(t, w.url)
	for _, name := range []string{"index.html", "docs.go", "..%2Fopenapi.go", "%2e%2e"} {
		w.do(t, http.MethodGet, "/docs/"+name, "").problem(t, evently.CodeNotFound)
	}
}
