#!/usr/bin/env python3
"""Writes test_chat_template_cases.json: small templates and what Jinja2 3.1 renders from each.

Run it again after adding a case (needs the jinja2 package; the test itself does not).
"exact" cases must fail with the same words, the other failing ones with the same kind of error.
"""
import copy
import datetime
import json
import pathlib

import jinja2.ext
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

VARIABLES = {'messages': [{'role': 'system', 'content': 'Be kind.'},
              {'role': 'user', 'content': 'Hi 世界'},
              {'role': 'assistant',
               'content': None,
               'tool_calls': [{'id': 'a1',
                               'function': {'name': 'f',
                                            'arguments': {'x': 1, 'y': [True, None, 2.5]}}}]}],
 'tools': None,
 'n': 5,
 'f': 2.5,
 's': 'Hello, World',
 'e': '',
 'l': [3, 1, 2],
 'd': {'b': 1, 'a': 'two', 'items': 'own'},
 'nested': [[1, 2], [3, [4, 5]]],
 'flag': True,
 'uni': 'ÄÖß ﬁ Straße ΑΣ É',
 'ws': ' \t x y \n',
 'neg': -7,
 'big': 1e+20,
 'small': 1.5e-07,
 'users': [{'name': 'Bob', 'age': 30, 'tags': ['x']},
           {'name': 'alice', 'age': 25, 'tags': []},
           {'name': 'Carl', 'age': 30, 'tags': ['y', 'z']}],
 'tree': [{'v': 1, 'c': [{'v': 2, 'c': []}, {'v': 3, 'c': [{'v': 4, 'c': []}]}]}],
 'q': 'it\'s "quoted"',
 'ml': 'a\nb\n\nc'}

# Each is rendered with VARIABLES and must succeed, or fail in the same words.
CASES = [
    'plain text|plain text',
    'x{{ n }}y',
    '{{ n + 1 }} {{ n - 8 }} {{ n * 2.0 }} {{ n / 2 }} {{ n // 2 }} {{ neg // 2 }} {{ neg % 3 }} {{ n ** 3 }} {{ 2 ** -1 }} {{ -n }} {{ +n }} {{ -7.5 // 2 }} {{ -7.5 % 2 }}',
    '{{ 1.0 }} {{ 0.1 + 0.2 }} {{ big }} {{ small }} {{ 1e16 }} {{ 123456789012345680.0 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1e300 * 1e10 }} {{ 100.0 }} {{ 3.0 == 3 }}',
    "{{ none }} {{ None }} {{ true }} {{ False }} {{ undefined_thing }}| {{ [1, 'a', none, true, 1.5, undefined_thing] }} {{ (1,) }} {{ () }} {{ (1, 2) }} {{ {'a': 1, 2: [3]} }} {{ {} }} {{ [] }}",
    "{{ 'a' ~ 1 ~ none ~ [1] }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 'ab' * 3 }} {{ 2 * [0] }} {{ (1,) + (2,) }}",
    '{{ q }} {{ [q] }} {{ ["it\'s"] }} {{ [\'"\'] }} {{ [\'\\n\\t\\\\\', \'\\x00\\x7f\', \'é世😀\\u200b\\xa0\'] }}',
    "joined' }}",
    "{{ 1 if flag }} {{ 1 if not flag }}| {{ 'a' if n > 3 else 'b' }} {{ 'a' if n > 9 else 'b' if n > 4 else 'c' }}",
    "{{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ none == none }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }} {{ [1] == (1,) }} {{ 'é' > 'z' }} {{ 1 != 2 }} {{ undefined_thing == nope }}",
    "{{ 'a' in 'cat' }} {{ 'z' not in 'cat' }} {{ 2 in l }} {{ 'b' in d }} {{ not 'b' in d }} {{ 3 in (1, 2) }} {{ 'x' in undefined_thing }} {{ '' in '' }} {{ 1.0 in [1] }}",
    "{{ 0 or 'x' }} {{ 1 and 'y' }} {{ '' or none or [] }} {{ 0 and boom.x }} {{ not 0 }} {{ true or boom.x }} {{ not not 5 }}",
    '{{ l[0] }} {{ l[-1] }} {{ l[9] }}| {{ l[1:] }} {{ l[::-1] }} {{ l[-2:] }} {{ l[:-1] }} {{ l[5:] }} {{ l[2:0:-1] }} {{ s[1:4] }} {{ s[::-2] }} {{ s[-3:] }} {{ uni[0:3] }} {{ uni[::-1] }} {{ s[0] }} {{ uni[2] }} {{ s[99] }}| {{ nested.1.1.0 }} {{ l[:0] }} {{ l[-100:100:2] }} {{ range(10)[2:8:3]|list }} {{ l[true] }}',
    "{{ d.a }} {{ d['b'] }} {{ d.nope }}| {{ d['items'] }} {{ d.items() }} {{ d.keys() }} {{ d.values() }} {{ d.get('a') }} {{ d.get('zz') }} {{ d.get('zz', 7) }} {{ d['get'] is defined }} {{ d|length }} {{ d.items()|list }}",
    '{% for m in messages %}{{ loop.index }}/{{ loop.length }}:{{ m.role }}{% if not loop.last %}, {% endif %}{% endfor %}',
    "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('o', 'e') }};{% endfor %}",
    '{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}',
    '{% for x in [] %}a{% else %}none{% endfor %} {% for x in l %}a{% else %}none{% endfor %} {% for x in undefined_thing %}a{% else %}undef{% endfor %}',
    '{% for x in range(10) if x is odd %}{{ loop.index }}:{{ x }} {% else %}no{% endfor %}{% for x in l if x > 9 %}{% else %}empty{% endfor %}',
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% for c in 'añb' %}[{{ c }}]{% endfor %}",
    '{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}',
    '{% for x in l %}{% for y in l %}{{ loop.index }}{% if y == 1 %}{% break %}{% endif %}{% endfor %}-{{ loop.index }} {% endfor %}',
    '{% for n in tree recursive %}{{ n.v }}@{{ loop.depth }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% if not loop.last %},{% endif %}{% endfor %}',
    '{% set x = 1 %}{% for i in l %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}',
    "{% set ns = namespace(t=0, s='') %}{% for i in l %}{% set ns.t = ns.t + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.t }} {{ ns.s }} {{ ns.none_such }}| {{ ns }}",
    "{% set ns = namespace() %}{% set ns.a = [1] %}{{ ns.a }} {{ namespace({'b': 2}).b }}",
    '{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}{% set t = 1, 2 %}{{ t }}',
    '{% set x %}  body {{ n }} {% endset %}[{{ x }}]{% set y | trim | upper %}  body {% endset %}[{{ y }}]{{ x is string }}',
    '{% if n > 9 %}a{% elif n > 4 %}b{% else %}c{% endif %}{% if none %}1{% endif %}{% if n == 1 %}{% elif false %}{% endif %}|',
    "{% if x is not defined %}{% set x = 'set' %}{% endif %}{{ x }}{% for i in [1] %}{% set x = 'in' %}{% endfor %}{{ x }}",
    "{% macro m(a, b=2, c='x' ~ b) %}[{{ a }}|{{ b }}|{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=0) }}{{ m() }}{{ m(1, c='q') }}{{ m.name }}{{ m.arguments }}{{ m.caller }}",
    '{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, k=3) }}{{ m() }}{{ m.catch_kwargs }}{{ m.catch_varargs }}',
    '{% macro outer(x) %}<{{ caller(x * 2) }}|{{ caller(1) }}>{% endmacro %}{% call(v) outer(4) %}v={{ v }} n={{ n }}{% endcall %}',
    '{% macro plain() %}({{ caller() }}){% endmacro %}{% call plain() %}inner{% endcall %}',
    '{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k * fact(k - 1)|int }}{% endif %}{% endmacro %}{{ fact(6) }}',
    "{% set v = 'global' %}{% macro show() %}{{ v }}{% set v = 'local' %}{{ v }}{% endmacro %}{{ show() }}{{ v }}{% set v = 'later' %}{{ show() }}",
    '{% with a = 1, b = n %}{{ a }}{{ b }}{% set c = 9 %}{{ c }}{% endwith %}{{ a }}{{ c }}|{% with %}w{% endwith %}',
    "{% filter upper %}abc {{ s }}{% endfilter %}{% filter replace('a', 'b')|trim %} banana {% endfilter %}",
    '{% raw %}{{ not }} {% this %} {# either #}{% endraw %}{%- raw -%}  x  {%- endraw -%}  y',
    'line #}e',
    '  x',
    'y',
    '  x',
    'y',
    '  x',
    'z',
    "{{ 'a' -}}   b {{- 'c' }}",
    " {{- 'd' }}",
    'tail',
    'line one\\r\\nline two\\rthree',
    "{{ s|upper }} {{ s|lower }} {{ 'hello big-world (x) <y' |title }} {{ 'hELLO wORLD'|capitalize }} {{ ws|trim }}| {{ 'xxaxx'|trim('x') }} {{ s|length }} {{ l|count }} {{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 1) }} {{ s|reverse }} {{ l|reverse|list }} {{ uni|upper }} {{ uni|lower }} {{ uni|title }} {{ 12|string + '3' }}",
    "{{ l|join }} {{ l|join(', ') }} {{ users|join(', ', attribute='name') }} {{ l|first }} {{ l|last }} {{ []|first }}| {{ s|list }} {{ d|list }} {{ l|sort }} {{ l|sort(reverse=true) }} {{ ['b', 'A', 'c']|sort }} {{ ['b', 'A', 'c']|sort(case_sensitive=true) }} {{ users|sort(attribute='age,name')|map(attribute='name')|list }} {{ l|min }} {{ l|max }} {{ l|sum }} {{ users|sum(attribute='age') }} {{ [1, 2, 1, 'a', 'A']|unique|list }}",
    "{{ users|map(attribute='name')|join('/') }} {{ users|map(attribute='zip', default='-')|list }} {{ ['a', 'b']|map('upper')|list }} {{ [' a ', 'b']|map('trim')|map('length')|list }} {{ users|map(attribute='tags.0')|list }} {{ ['1', '2']|map('int')|sum }} {{ ['a']|map('replace', 'a', 'z')|list }}",
    "{{ users|selectattr('age', 'equalto', 30)|map(attribute='name')|list }} {{ users|rejectattr('age', '==', 30)|map(attribute='name')|list }} {{ users|selectattr('tags')|list|length }} {{ [0, 1, 2, none]|select|list }} {{ [1, 2, 3]|select('odd')|list }} {{ [1, 2, 3]|reject('gt', 1)|list }} {{ messages|selectattr('tool_calls', 'defined')|list|length }} {{ users|rejectattr('tags')|map(attribute='name')|first }} {{ ['x', 1]|select('string')|list }} {{ [1, 2, 3, 4]|select('divisibleby', 2)|list }} {{ users|selectattr('name', 'in', ['Bob'])|list|count }}",
    "{{ d|dictsort }} {{ {'b': 1, 'A': 2}|dictsort }} {{ {'b': 1, 'A': 2}|dictsort(true) }} {{ {'b': 2, 'a': 3}|dictsort(by='value', reverse=true) }} {{ d|items|list }} {{ undefined_thing|items|list }}",
    "{{ undefined_thing|default('dflt') }} {{ none|default('x') }} {{ ''|default('x', true) }} {{ n|d(1) }} {{ undefined_thing|default }}|",
    "{{ '42'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '3.9'|int }} {{ 3.9|int }} {{ 'ff'|int(base=16) }} {{ '0x1f'|int(0, 16) }} {{ '2.5'|float }} {{ 'q'|float }} {{ 3|float }} {{ -3|abs }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.567|round(2) }} {{ 2.1|round(method='ceil') }} {{ 2.9|round(0, 'floor') }} {{ 1234|round(-2) }} {{ 1.5|round|int }} {{ none|int }} {{ true|int }} {{ ' 12 '|int }} {{ '1_0'|int }}",
    "{{ ml|indent }} {{ ml|indent(2, true) }} {{ ml|indent(2, blank=true) }} {{ ml|indent('>> ', first=true) }} {{ ml|wordcount }} {{ s|truncate(5) }} {{ s|truncate(8, true, '') }} {{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(11, leeway=0) }} {{ s|center(20) }}|",
    "{{ [1, 2, 3, 4, 5]|batch(2)|list }} {{ [1, 2, 3]|batch(2, 'x')|list }} {{ [1, 2, 3, 4, 5]|slice(3)|list }} {{ [1, 2, 3]|slice(2, 'f')|list }} {% for g, items in users|groupby('age') %}{{ g }}:{{ items|map(attribute='name')|join(',') }};{% endfor %}",
    '{{ \'<a href="x">&\\\'</a>\'|e }} {{ \'a b/c?d=é\'|urlencode }} {{ {\'a b\': \'c&d\'}|urlencode }} {{ \'%s-%d-%5.2f|%-4s|%04d|%x|%%\' |format(\'a\', 3, 2.345, \'b\', 42, 255) }} {{ \'%(a)s\' % {\'a\': 1} }} {{ \'%s\' % 5 }} {{ \'%s %s\' % (\'a\', [1]) }} {{ \'%r %+d %e %g\' % (\'x\', 3, 12345.678, 0.00001) }}',
    "{{ '{} {}'.format(1, 'b') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x:>5}|{y:<4}|{z:^7}'.format(x=1, y='b', z='mid') }} {{ '{:.2f} {:05d} {:,} {:x} {:%} {:+}'.format(2.345, 42, 1234567, 255, 0.25, 3) }} {{ '{a.name} {b[0]} {{}}'.format(a=users[0], b=l) }} {{ '{!r:>6}'.format('a') }} {{ '{:*^9}'.format('x') }}",
    "{{ n is odd }} {{ n is even }} {{ n is divisibleby 5 }} {{ n is divisibleby(3) }} {{ x is defined }} {{ n is undefined }} {{ none is none }} {{ true is boolean }} {{ 1 is boolean }} {{ n is integer }} {{ true is integer }} {{ f is float }} {{ n is number }} {{ true is number }} {{ s is string }} {{ d is mapping }} {{ l is sequence }} {{ d is sequence }} {{ s is iterable }} {{ n is iterable }} {{ s is lower }} {{ 'ab' is lower }} {{ 'AB1' is upper }} {{ n is sameas 5 }} {{ none is sameas none }} {{ n is in [5] }} {{ n is eq 5 }} {{ n is gt 3 }} {{ n is le(5) }} {{ n is not none }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ range is callable }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ s is escaped }} {{ undefined_thing is iterable }} {{ l|map('string') is iterable }} {{ l|map('string') is sequence }}",
    '{{ ws.strip() }}|{{ ws.lstrip() }}|{{ ws.rstrip() }}|{{ \'xyax\'.strip(\'xy\') }} {{ s.split(\', \') }} {{ \' a  b \'.split() }} {{ \'a,b,c\'.split(\',\', 1) }} {{ \'a,b,c\'.rsplit(\',\', 1) }} {{ \' a b  c \'.rsplit(none, 1) }} {{ \' a b  c \'.split(none, 1) }} {{ s.startswith(\'Hell\') }} {{ s.startswith((\'x\', \'H\')) }} {{ s.endswith(\'d\') }} {{ s.startswith(\'W\', 7) }} {{ s.replace(\'o\', \'0\') }} {{ s.replace(\'o\', \'0\', 1) }} {{ s.upper() }} {{ s.lower() }} {{ "they\'re bill\'s 3rd"|string }} {{ "they\'re 3rd é".title() }} {{ \'aBC\'.capitalize() }} {{ s.find(\'o\') }} {{ s.rfind(\'o\') }} {{ s.find(\'zz\') }} {{ uni.find(\'S\') }} {{ s.count(\'l\') }} {{ s.index(\'W\') }} {{ \'-\'.join([\'a\', \'b\']) }} {{ \'ab\'.replace(\'\', \'-\') }} {{ \'\'.split(\',\') }} {{ \'\'.split() }}',
    "{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'é'.isalpha() }} {{ ' '.isspace() }} {{ ''.isdigit() }} {{ 'Ab'.isupper() }} {{ 'ab'.islower() }} {{ '²'.isdigit() }} {{ '½'.isnumeric() }} {{ '²'.isdecimal() }} {{ 'a'.center(5) }}| {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ '-5'.zfill(4) }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'a\\nb\\r\\nc'.splitlines() }} {{ 'a\\n'.splitlines(true) }} {{ l.index(2) }} {{ l.count(3) }} {{ (1, 2).index(2) }}",
    '{{ messages[2]|tojson }} {{ [1.0, 1e20, true, none, \'é<&>"\\\\/\\n\\x01\']|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 6}|tojson }} {{ (1, 2)|tojson }} {{ []|tojson }} {{ {}|tojson(indent=2) }} {{ \'é😀\'|tojson(ensure_ascii=true) }} {{ {\'b\': 1, \'a\': 2}|tojson(sort_keys=true) }} {{ {\'b\': [1, 2]}|tojson(separators=(\',\', \':\')) }}',
    "{{ messages[2]|tojson(indent=2) }} {{ [[], {}, [1]]|tojson(indent='\\t') }} {{ [1, {'a': []}]|tojson(indent=0) }}",
    "{{ range(3) }} {{ range(3)|list }} {{ range(1, 10, 3)|list }} {{ range(5, 0, -2)|list }} {{ range(3)|length }} {{ range(0)|list }} {{ 3 in range(5) }} {{ range(5)[-1] }} {{ dict(a=1, b=2) }} {{ dict([('x', 1)]) }} {{ range(1, 9, 2) }}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y, %A %B %j %y %I %p %-d %%') }}",
    "{{ messages|map(attribute='role')|list }} {{ messages|map(attribute='content')|select('string')|list }} {{ (messages|first).role }} {{ messages[-1]['tool_calls'][0].function.arguments.y[2] }} {{ messages[1:][0].role }}",
    "{% set x = {'a': {'b': [1, {'c': 'deep'}]}} %}{{ x.a.b[1].c }} {{ x['a']['b'][0] }} {{ x.a.b.1.c }}",
    '{% for a in [1, 2] %}{% set outer_loop = loop %}{% for b in [1, 2] %}{{ outer_loop.index }}.{{ loop.index }} {% endfor %}{% endfor %}',
    "{% if tools %}t{% else %}no tools{% endif %} {% if tools is none %}none{% endif %} {% if messages and messages[0].role == 'system' %}sys{% endif %}",
    '  {{ x }}',
    '  {{ x }}',
    'end',
    "{% print n, s %}{% set u = undefined_thing %}{{ u is defined }}{{ u|default('d') }}{% if undefined_thing %}x{% endif %}{{ undefined_thing|length }}{{ undefined_thing|list }}{{ undefined_thing ~ 'x' }}",
    '{{ loop is defined }}{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}',
    "{% set it = l|map('string') %}{{ it|list }}{{ it|list }}{% for x in l|select('gt', 1) %}{{ loop.length }}{{ x }}{% endfor %}",
    "{{ [[1, 2], [3]]|sum(start=[]) }} {{ 'x'|attr('upper') is callable }} {{ d|attr('a') }}| {{ d|attr('keys')()|list }} {{ (1, 2)|first }} {{ [1, 2]|string|length }} {{ ['a', 'b']|join|upper }} {{ none|string }} {{ l is sameas l }}",
    '{{ \'a\' \'b\' }} {{ "{{" }} {{ \'%}\' }} {{ \'}}\' }} {{ {\'a\': {\'b\': 1}}[\'a\'][\'b\'] }}',
    '{{ foo|default({}, true)|tojson }} {{ [false]|tojson }} {{ -0.0 }} {{ 1e5 }} {{ 12345678.9 }} {{ 5 // 0.3 }} {{ true + true }} {{ 7 % -3 }} {{ 2.0 ** 0.5 }} {{ 10 ** 15 }} {{ 1 / 3 }}',
    'a {# comment {{ x }} #}b {#- c -#} d{# multi\nline #}e\n',
    '  {% if true %}\n  x\n  {% endif %}\ny\n  {%- if true -%}\n  x\n  {%- endif -%}\ny\n  {%+ if true +%}\n  x\n  {%+ endif %}\nz\n',
    "{{ 'a' -}}   b {{- 'c' }}\n {{- 'd' }}\ntail\n\n",
    'one\r\ntwo\rthree\r\n',
    '{% for x in l -%}\n  {{ x }}\n{%- endfor %}\n\n{% for x in l %}\n  {{ x }}\n{% endfor %}\nend',
    '{% for x in l %}{{ x }}\n{% endfor %}\n\n\n',
    "{{ 'a\\\nb' }}{{ 'c\nd' }}",
    '\n\n  {% set x = 1 %}  \n{{ x }}',
    '{% if true %}\r\nx{% endif %}\r\n',
    '  {# c #}\n  x\n{%- raw %}\n {{ a }}\n{% endraw %}\n',
    '\t{%- set x = 5 -%} \n\t{{- x -}} \n\n z',
    '{{ 1 }}\n\n',
    '{% macro m() %}\n  a\n{% endmacro %}\n[{{ m() }}]',
    '{% if 1 %}\n    {{ 2 }}\n{% endif %}  \n',
    'x {% if 1 %} y {% endif %} z',
    '{%- if 1 %}a{% endif -%}\xa0\u2003\n b',
    '  {%+ raw %} a {% endraw +%}\n b',
    "{{ 'a' if true\n else 'b' }}",
    '{# a #}\n{# b #}\n\nc',
    '\ufeffx{{ 1 }}',
    "{{ 'é' }}\\",
    '{{ s\n|upper\n}}',
    '{%set x=1%}{{x}}{%if x==1%}y{%endif%}',
    '{{n}}{{-n}}{{+n}}',
    "{{ {'a':{'b':{}}} }}",
    '{%  raw  %}{% raw %}{%  endraw  %}',
    'a{{ 1 }}{# x -#}  \n  b',
    '{% for x in [1] %}\n\n{{ x }}\n\n{% endfor %}\n\nq',
    '{{ range(5).index(3) }}{% for x in [1] %}{% break %}{% else %}else{% endfor %}',
    '{% for x in [1, 2] %}{% set y %}{% continue %}{% endset %}x{% endfor %}|',
    "{{ '%5.2f|%.0f|%*d' % (2.345, 7.5, 4, 3) }}",
    '{{ [1, 2, 3, 4]|last }}{{ undefined_thing|last }}{{ ()|reverse|list }}',
    "{% for a in 'ab' %}{% macro m() %}{{ a }}{{ loop.index }}{% endmacro %}{{ m() }}{% endfor %}",
    '{{ undefined_thing.x }}',
    "{{ undefined_thing['x'] }}",
    '{{ d.nope.x }}',
    '{{ undefined_thing + 1 }}',
    '{{ 1 + undefined_thing }}',
    "{{ 'a' + 1 }}",
    "{{ 1 + 'a' }}",
    "{{ [] + 'a' }}",
    "{{ none + 'a' }}",
    "{{ 1 < 'a' }}",
    '{{ none > 1 }}',
    '{{ undefined_thing < 1 }}',
    '{{ n() }}',
    '{{ undefined_thing() }}',
    '{{ d.nope() }}',
    '{{ l.append(1) }}',
    '{{ d.update({}) }}',
    "{{ d.pop('a') }}",
    '{{ s.__class__.x }}',
    "{{ raise_exception('bad ' ~ n) }}",
    '{{ n|nosuch }}',
    '{{ n is nosuch }}',
    '{% if false %}{{ n|nosuch }}{% endif %}ok',
    '{% if true %}{{ n|nosuch }}{% endif %}ok',
    '{{ 1 if true else n|nosuch }}',
    '{{ (n|nosuch) if false else 2 }}',
    '{% if false %}{% for x in l %}{{ x|nosuch }}{% endfor %}{% endif %}',
    '{% for x in none %}{% endfor %}',
    '{% for x in 5 %}{% endfor %}',
    '{% for a, b in [1] %}{% endfor %}',
    '{% for a, b in [[1, 2, 3]] %}{% endfor %}',
    '{% set a, b = [1] %}',
    '{% set n.x = 1 %}',
    '{% set zz.x = 1 %}',
    '{{ 1 // 0 }}',
    '{{ 1 / 0 }}',
    '{{ 1 % 0 }}',
    '{{ 1.0 // 0 }}',
    '{{ n|length }}',
    "{{ l|map('string')|length }}",
    '{{ l|join(1)|nope }}',
    "{{ ''.join([1]) }}",
    "{{ 'a'.index('b') }}",
    "{{ 'a'.split('') }}",
    '{{ l[::0] }}',
    '{{ d[1:] }}',
    '{{ undefined_thing[1:] }}',
    "{{ l['a':] }}",
    '{{ [1]|tojson|fromjson }}',
    '{{ undefined_thing|tojson }}',
    '{{ {(1, 2): 3}|tojson }}',
    '{{ {[1]: 2} }}',
    '{{ [1] in d }}',
    "{{ 1 in 'abc' }}",
    '{{ 1 in 5 }}',
    '{{ range(1000000) }}',
    "{{ range('a') }}",
    '{{ range(1, 2, 0) }}',
    '{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}',
    '{% macro m(a) %}{% endmacro %}{{ m(b=2) }}',
    '{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}',
    '{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}',
    "{{ 'a'|int + undefined_thing }}",
    '{{ undefined_thing|int }}',
    "{{ [1, 'a']|sort }}",
    '{{ [none, 1]|max }}',
    '{{ [[1]]|unique|list }}',
    "{{ '%d' % 'a' }}",
    "{{ '%s %s' % 'a' }}",
    "{{ '%s' % (1, 2) }}",
    "{{ '{}'.format() }}",
    "{{ '{a}'.format() }}",
    '{{ l|items|list }}',
    '{{ 5|last }}',
    "{{ 'x'|abs }}",
    '{{ loop(1) }}',
    '{% for x in l %}{{ loop([]) }}{% endfor %}',
    "{{ -'a' }}",
    "{{ 'a' * 'b' }}",
    '{{ [] - [] }}',
    "{{ l|select('nosuch')|list }}",
    "{{ l|map('nosuch')|list }}",
    '{{ l|map()|list }}',
    '{{ l|selectattr()|list }}',
    '{{ n.x.y }}',
    '{{ l.nope.y }}',
    '{{ l[7].y }}',
    '{{ none.x.y }}',
    "{{ {'a': 1}['b'].c }}",
    '{{ s.nope() }}',
    '{{ 1.5.x.y }}',
]

# Each is refused.
REFUSED = [
    '{{ }}',
    '{{ 1 + }}',
    '{{ (1 }}',
    '{{ 1) }}',
    '{{ [1, 2 }}',
    '{% if %}{% endif %}',
    '{% if true %}',
    '{% endif %}',
    '{% for x l %}{% endfor %}',
    '{% for 1 in l %}{% endfor %}',
    '{% nosuch %}',
    '{% set 1 = 2 %}',
    '{% set x %}',
    "{{ 'unterminated }}",
    '{{ a b }}',
    '{{ a..b }}',
    '{# open',
    '{% raw %} open',
    '{% macro m(a=1, b) %}{% endmacro %}',
    '{% macro %}{% endmacro %}',
    '{% call n %}{% endcall %}',
    '{{ f(a=1, 2) }}',
    '{{ f(**a, b) }}',
    '{{ a is b is c }}',
    '{{ a ? b }}',
    '{{ "\\x4" }}',
    '{% break %}',
    '{% else %}',
    '{{ a. }}',
    '{{ a | }}',
    '{% if a %}{% elif %}{% endif %}',
    '{% do x %}',
    '{{ $ }}',
    '{% endfor %}',
    '{{',
    '{%',
    '{% if true }}',
    '{{ true %}',
]


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def strftime_now(form):
    return datetime.datetime(2026, 1, 2, 3, 4, 5).strftime(form)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def render(env, source, exact):
    case = {"source": source}
    try:
        case["output"] = env.from_string(source).render(**copy.deepcopy(VARIABLES))
    except Exception as error:  # pylint: disable=broad-except
        case["error"] = f"{type(error).__name__}: {error}"
        case["exact"] = exact
    return case


def main():
    env = environment()
    rows = [render(env, source, True) for source in CASES]
    rows += [render(env, source, False) for source in REFUSED]
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    text = '{"variables":\n' + json.dumps(VARIABLES) + ',\n"cases": [\n' + lines + "\n]}\n"
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(text, encoding="utf-8")
    print(f"{len(rows)} cases, {sum('error' in row for row in rows)} of them errors")


if __name__ == "__main__":
    main()
