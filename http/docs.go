package http

import (
	"embed"
	"path"
	"sync"

	"github.com/gin-gonic/gin"
)

// docsFiles is the page that shows openapi.json. It is made of swagger-ui-dist 5.35.0 from the npm registry, whose bundle,
// style sheet and licences stand here unchanged, and of an index.html and init.js of our own. It loads nothing from elsewhere.
//
//go:embed docs
var docsFiles embed.FS

// docsAssets are the docsFiles by name. They are digested once, when the first Server asks for one.
var docsAssets = sync.OnceValue(func() map[string]*asset {
	entries, err := docsFiles.ReadDir("docs")
	if err != nil {
		panic("http: read the embedded docs: " + err.Error())
	}
	assets := make(map[string]*asset, len(entries))
	for _, entry := range entries {
		body, err := docsFiles.ReadFile("docs/" + entry.Name())
		if err != nil {
			panic("http: read the embedded docs: " + err.Error())
		}
		mediaType := []string{"text/plain; charset=utf-8"} // licences
		switch path.Ext(entry.Name()) {
		case ".html":
			mediaType = []string{"text/html; charset=utf-8"}
		case ".js":
			mediaType = []string{"text/javascript; charset=utf-8"}
		case ".css":
			mediaType = []string{"text/css; charset=utf-8"}
		}
		assets[entry.Name()] = newAsset(body, mediaType)
	}
	return assets
})

const docsIndex = "index.html"

// docsPolicy lets the page use its own files and this API, and nothing else. The style sheet has its images as data.
var docsPolicy = []string{"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}

func docsPage(c *gin.Context) error {
	c.Writer.Header()["Content-Security-Policy"] = docsPolicy
	return docsAssets()[docsIndex].serve(c)
}

func docsFile(c *gin.Context) error {
	asset, found := docsAssets()[c.Param("file")]
	if !found || c.Param("file") == docsIndex { // the page has one URL
		return errRouteNotFound
	}
	return asset.serve(c)
}
