package admin

import (
	"encoding/json"
	"net/http"
)

// pages are the endpoints of Options.Pages.
func (s *Server) pages() []*endpoint {
	var out []*endpoint
	for _, p := range s.options.Pages {
		out = append(out, &endpoint{
			path: p.Path, help: p.Help, serve: p.serve,
			params: []param{{"format", "File format to use; One of (text, json)"}},
		})
	}
	return out
}

func (p *Page) serve(r *request) answer {
	switch format, _ := r.query.get("format"); format {
	case "", "text":
		return answer{status: http.StatusOK, contentType: typeText, write: p.Text}
	case "json":
		b, err := json.MarshalIndent(p.JSON(), "", " ")
		if err != nil {
			return textf(http.StatusInternalServerError, "%v\n", err)
		}
		return answer{status: http.StatusOK, contentType: typeJSON, body: append(b, '\n')}
	}
	return text(http.StatusBadRequest, "usage: "+p.Path+"?format=text or "+p.Path+"?format=json\n")
}
