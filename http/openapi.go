package http

import (
	"crypto/sha256"
	_ "embed" // openapi.json is part of the program
	"encoding/hex"
	"net/http"

	"github.com/gin-gonic/gin"
)

// openapiDocument describes the API in OpenAPI 3.1. It is written by hand; the tests hold it to the route table, and
// package apitest holds the answers to it.
//
//go:embed openapi.json
var openapiDocument []byte

func (s *Server) docRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/openapi.json", handle: newAsset(openapiDocument, jsonMediaType).serve},
		{method: http.MethodGet, path: "/docs", handle: docsPage},
		{method: http.MethodGet, path: "/docs/:file", handle: docsFile},
	}
}

// asset is a file that is part of the program, and the same for everybody.
type asset struct {
	body      []byte
	mediaType []string
	tag       []string
}

func newAsset(body []byte, mediaType []string) *asset {
	digest := sha256.Sum256(body)
	return &asset{body, mediaType, []string{`"` + hex.EncodeToString(digest[:16]) + `"`}}
}

// cacheAsset lets clients keep an asset, and has them ask after it once it may be that of an earlier version.
var cacheAsset = []string{"public, max-age=300"}

func (a *asset) serve(c *gin.Context) error {
	header := c.Writer.Header()
	header["Etag"], header["Cache-Control"] = a.tag, cacheAsset
	if matched, _ := matchTag(c.Request.Header["If-None-Match"], a.tag[0], true); matched {
		c.Writer.WriteHeader(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
		return nil
	}
	header["Content-Type"] = a.mediaType
	writeBody(c, http.StatusOK, a.body)
	return nil
}
