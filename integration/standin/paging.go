package standin

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

const pageSize = 10

// paged answers with one page of a list (highest id first, ten a page unless
// per_page says otherwise) and the links to the others. The links carry the
// request's own query.
func paged[T any](c *call, list []T, view func(T) object) *reply {
	q := c.r.URL.Query()
	page, perPage := 1, pageSize
	for key, v := range map[string]*int{"page": &page, "per_page": &perPage} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return refuse(http.StatusInternalServerError, fmt.Sprintf("The '%s' parameter should be an integer", key))
		}
		if n <= 0 {
			return refuse(http.StatusInternalServerError, fmt.Sprintf("%s needs to be >= 1", key))
		}
		*v = n
	}
	pages := (len(list) + perPage - 1) / perPage
	links := object{}
	link := func(rel string, n int) {
		args := make(url.Values, len(q)+1)
		for k, v := range q {
			args[k] = v
		}
		args.Set("page", strconv.Itoa(n))
		links[rel] = c.s.api + c.r.URL.Path + "?" + args.Encode()
	}
	link("first", 1)
	link("self", page)
	if page > 1 {
		link("previous", page-1)
	}
	if page < pages {
		link("next", page+1)
	}
	if pages > 0 {
		link("last", pages)
	}
	data := []object{}
	// The comparison comes first: a huge page number must not overflow.
	if page <= pages {
		start := (page - 1) * perPage
		for _, v := range list[start:min(start+perPage, len(list))] {
			data = append(data, view(v))
		}
	}
	return &reply{
		code: http.StatusOK, body: object{"data": data, "links": links},
		header: http.Header{"Total-Count": {strconv.Itoa(len(list))}},
	}
}
