"""Terms for synthetic notes: diseases, symptoms, medications.

Five pools, one per specialty and one shared. About a third of the terms are listed; the others
are composed: word root with suffix, body site with complaint, drug-name start with stem. Many
composed drugs and all brands are invented. `;` separates terms, `|` the forms of one
term (the first is the full form), `=` an adjective and its noun.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from common.data.draws import digest

DISEASE, SYMPTOM, MEDICATION = LABELS = ("Disease", "Symptom", "Medication")
SPECIALTIES = ("cardiac", "oncology", "neuro", "infectious")
SHARED = "shared"


@dataclass(frozen=True, slots=True)
class Term:
    """One concept and the ways it is written.

    Attributes:
        forms: the first is the full form.
        composed: whether it was put together from parts and is rather rare in notes.
    """

    forms: tuple[str, ...]
    composed: bool = False


Pool = Mapping[str, tuple[Term, ...]]
"""Label to terms."""


@cache
def pool(specialty: str) -> Pool:
    """The terms of one specialty, or of `SHARED`, by label."""
    terms = {
        DISEASE: _diseases(specialty),
        SYMPTOM: _symptoms(specialty),
        MEDICATION: _medications(specialty),
    }
    return MappingProxyType({label: _distinct(found) for label, found in terms.items()})


def _diseases(specialty: str) -> list[Term]:
    roots, suffixes = (items(part) for part in _ROOTS.get(specialty, ("", "")))
    rooted = [root + suffix for root in roots for suffix in suffixes]
    qualified = [Term((f"{_qualifier(name)} {name}", name), composed=True) for name in rooted]
    return _listed(_DISEASES[specialty]) + qualified + _sited(*_LESIONS.get(specialty, ("", "")))


def _symptoms(specialty: str) -> list[Term]:
    return _listed(_SYMPTOMS[specialty]) + _sited(*_COMPLAINTS.get(specialty, ("", "")))


def _medications(specialty: str) -> list[Term]:
    starts, stems = items(_STARTS), items(_STEMS.get(specialty, ""))
    invented = [
        Term((start + stem,), composed=True)
        for stem in stems
        for start in sorted(starts, key=lambda start: digest(start, stem))[:9]
    ]
    return _listed(_MEDICATIONS[specialty]) + invented


def _sited(sites: str, findings: str) -> list[Term]:
    """Every finding at every site: `left calf swelling`, `swelling of the left calf`."""
    pairs = [(site.partition("="), finding) for site in items(sites) for finding in items(findings)]
    return [
        Term((f"{adjective} {finding}", f"{finding} of the {noun or adjective}"), composed=True)
        for (adjective, _, noun), finding in pairs
    ]


def _qualifier(name: str) -> str:
    return ("acute", "chronic", "recurrent", "idiopathic")[digest("qualifier", name)[0] % 4]


def items(text: str) -> tuple[str, ...]:
    """The `;`-separated items of `text`, their blanks normalised."""
    return tuple(" ".join(item.split()) for item in text.split(";") if item.strip())


def _listed(text: str) -> list[Term]:
    return [Term(tuple(item.split("|"))) for item in items(text)]


def _distinct(terms: list[Term]) -> tuple[Term, ...]:
    return tuple({term.forms[0]: term for term in terms}.values())


_DISEASES = {
    "shared": """hypertension|HTN|high blood pressure; type 2 diabetes|T2DM|type 2 diabetes
        mellitus; asthma; COPD|chronic obstructive pulmonary disease; hypothyroidism|underactive
        thyroid; chronic kidney disease|CKD; osteoarthritis|OA; obesity; gout; psoriasis;
        eczema; anxiety; depression|depressive disorder; hyperlipidaemia|high cholesterol;
        glaucoma; osteoporosis; iron deficiency anaemia|IDA; reflux disease|GORD; irritable
        bowel syndrome|IBS; migraine; coeliac disease; rheumatoid arthritis|RA;
        gallstones|cholelithiasis; diverticular disease; benign prostatic hyperplasia|BPH;
        vitamin D deficiency; acute kidney injury|AKI; cataract; hyponatraemia; Sjögren
        syndrome; obstructive sleep apnoea|OSA; fatty liver disease|NAFLD; Crohn disease;
        ulcerative colitis|UC; cirrhosis; alcohol dependence; hiatus hernia""",
    "cardiac": """atrial fibrillation|AF|auricular fibrillation; aortic stenosis|AS; heart
        failure|HF|CCF; myocardial infarction|MI|heart attack; ischaemic heart disease|IHD;
        mitral stenosis|MS; non-ST elevation myocardial infarction|NSTEMI; unstable angina|UA;
        complete heart block|CHB; atrial flutter; mitral regurgitation|MR; dilated
        cardiomyopathy|DCM; Takotsubo syndrome; hypertrophic cardiomyopathy|HCM; infective
        endocarditis|IE; pulmonary embolism|PE; stroke; deep vein thrombosis|DVT; peripheral
        arterial disease|PAD; ventricular tachycardia|VT; sick sinus syndrome|SSS; long QT
        syndrome; Brugada syndrome; aortic dissection; Wolff-Parkinson-White syndrome|WPW;
        cardiac amyloidosis; cardiogenic shock|shock; pulmonary hypertension|PHT; rheumatic
        heart disease|RHD; cardiac tamponade; coronary artery disease|CAD""",
    "oncology": """breast cancer|breast ca; non-small cell lung cancer|NSCLC; small cell lung
        cancer|SCLC; diffuse large B-cell lymphoma|DLBCL; multiple myeloma|MM; Hodgkin
        lymphoma|HL; melanoma; acute myeloid leukaemia|AML; chronic lymphocytic leukaemia|CLL;
        mesothelioma; seminoma; hepatocellular carcinoma|HCC; renal cell carcinoma|RCC;
        cholangiocarcinoma; glioblastoma|GBM; ductal carcinoma in situ|DCIS; gastrointestinal
        stromal tumour|GIST; Ewing sarcoma; neutropenic sepsis; febrile neutropenia; tumour
        lysis syndrome|TLS; spinal cord compression|MSCC; superior vena cava obstruction|SVCO;
        malignant pleural effusion; brain metastases|brain mets; myelodysplastic syndrome|MDS;
        carcinoid; Barrett oesophagus; lymphoedema; hypercalcaemia""",
    "neuro": """multiple sclerosis|MS|demyelinating disease; Parkinson disease|PD;
        epilepsy; Alzheimer disease|AD; ischaemic stroke|CVA; transient ischaemic attack|TIA;
        Ménière disease; motor neurone disease|MND; myasthenia gravis|MG; Guillain-Barré
        syndrome|GBS; narcolepsy; bipolar affective disorder|bipolar disorder|BPAD;
        schizophrenia; panic disorder; psychosis; obsessive compulsive disorder|OCD;
        post-traumatic stress disorder|PTSD; anorexia nervosa; generalised anxiety disorder|GAD;
        carpal tunnel syndrome|CTS; trigeminal neuralgia; Bell palsy; normal pressure
        hydrocephalus|NPH; subdural haematoma|SDH; vascular dementia; essential tremor; Lewy
        body dementia|DLB; cluster headache; restless legs syndrome|RLS; Huntington disease|HD""",
    "infectious": """pneumonia|CAP|chest infection; cellulitis; tuberculosis|TB; influenza|flu;
        malaria; urinary tract infection|UTI; infectious mononucleosis|glandular fever;
        hepatitis B|HBV; hepatitis C|HCV; HIV; herpes zoster|shingles; COVID-19|Covid; Lyme
        disease; gonorrhoea; syphilis; Clostridioides difficile infection|C diff|CDI; norovirus
        gastroenteritis; scabies; dengue; osteomyelitis|OM; septic arthritis; bacterial
        meningitis; sepsis; MRSA bacteraemia; pelvic inflammatory disease|PID;
        tonsillitis|quinsy; otitis media|AOM; oral candidiasis|thrush; typhoid|enteric fever;
        leptospirosis; brucellosis; cold|common cold; impetigo; appendicitis""",
}

_ROOTS = {
    "cardiac": ("myocard; pericard; endocard; valvul; aort; arteri; phleb; angi", "itis; opathy"),
    "oncology": ("fibr; lip; chondr; oste; leiomy; rhabdomy; angi; neur", "oma; osarcoma"),
    "neuro": ("neur; encephal; myel; radicul; polyneur; gangli; leptomening", "itis; opathy"),
    "infectious": (
        "gastr; enter; col; hepat; nephr; pyel; cyst; bronch; sinus; laryng; pharyng;"
        "lymphaden; blephar; conjunctiv; dermat; burs; mening; parot",
        "itis",
    ),
}

_LESIONS = {
    "cardiac": (
        """mitral valve; aortic valve; tricuspid valve; left ventricular=left
        ventricle; right ventricular=right ventricle; left atrial=left atrium; coronary artery;
        aortic root; renal artery; carotid artery; femoral artery; iliac vein; aortic=descending
        aorta""",
        "dysfunction; aneurysm; thrombosis; insufficiency; calcification",
    ),
    "oncology": (
        """breast; gastric=stomach; colonic=colon; pancreatic=pancreas;
        hepatic=liver; renal=kidney; prostatic=prostate; ovarian=ovary; endometrial=endometrium;
        bladder; thyroid; oesophageal=oesophagus; laryngeal=larynx; cervical=cervix;
        tonsillar=tonsil; adrenal""",
        "adenocarcinoma; squamous cell carcinoma; neuroendocrine tumour; sarcoma",
    ),
    "neuro": (
        """cervical cord; ulnar nerve; median nerve; facial nerve; optic nerve;
        sciatic nerve; temporal lobe; frontal lobe; cerebellar=cerebellum; thalamic=thalamus;
        pontine=pons; hippocampal=hippocampus""",
        "infarct; demyelination; atrophy; haemorrhage; palsy",
    ),
    "infectious": (
        """respiratory tract; wound; hip joint; chest wall; dental=tooth;
        hepatic=liver; renal=kidney; epidural=epidural space; pelvic=pelvis; nail; scalp;
        peritoneal=peritoneum; splenic=spleen; vaginal=vagina""",
        "infection; abscess; candidiasis; actinomycosis",
    ),
}

_SYMPTOMS = {
    "shared": """fatigue|tiredness|lethargy; nausea; vomiting|emesis; headache; dizziness;
        fever|pyrexia; weight loss|losing weight; constipation; diarrhoea|loose stools; cough;
        insomnia|poor sleep; abdominal pain|tummy pain; back pain; loss of appetite|poor
        appetite; rash; falls; malaise; shortness of breath|SOB|breathlessness; joint
        pain|arthralgia; blurred vision; itching""",
    "cardiac": """chest pain|CP; dyspnoea on exertion|DOE|exertional breathlessness;
        palpitations|palps; orthopnoea; paroxysmal nocturnal dyspnoea|PND;
        syncope|blackout|collapse; ankle oedema|SOA; intermittent claudication; presyncope;
        ejection systolic murmur|ESM; raised JVP; cyanosis; bibasal crackles|bibasal creps;
        diaphoresis|sweating; bradycardia; tachycardia; light-headedness; third heart sound|S3;
        cold extremities; reduced exercise tolerance; clubbing""",
    "oncology": """night sweats; dysphagia|difficulty swallowing; haemoptysis|coughing up
        blood; hoarseness; cachexia|muscle wasting; mucositis|mouth ulcers; alopecia|hair loss;
        bone pain; jaundice; loss of libido; hand-foot soreness; rectal bleeding|PR bleeding;
        ascites; haematuria|blood in the urine; early satiety; altered taste|dysgeusia; hot
        flushes; hiccups; palpable lymphadenopathy|enlarged nodes; pallor; easy bruising;
        postmenopausal bleeding""",
    "neuro": """seizures|fits; diplopia|double vision; photophobia; aura; ataxia|unsteady
        gait; vertigo; memory loss|forgetfulness; slurred speech|dysarthria; word-finding
        difficulty|aphasia; drooling; low mood|feeling low; auditory hallucinations|hearing
        voices; anhedonia; paranoid ideation; bradykinesia|slowness of movement; resting tremor;
        foot drop; neck stiffness; agitation; nystagmus; suicidal ideation; panic attacks;
        pressured speech; confusion|disorientation; racing thoughts; cogwheel rigidity;
        irritability; urinary incontinence; flat affect; nightmares""",
    "infectious": """rigors|shivering; productive cough|purulent sputum; sore
        throat|odynophagia; dysuria; runny nose|coryza|rhinorrhoea; earache|otalgia; urinary
        frequency|frequency; myalgia|muscle aches; vesicular rash|blisters; crackles at the
        right base|right basal creps; sneezing; wheeze; chills; bloody diarrhoea; abdominal
        cramps; blocked nose|nasal congestion; erythema; warmth; hypotension; swollen
        glands|cervical nodes; pleuritic pain; conjunctival injection|red eye; tachypnoea""",
}

_COMPLAINTS = {
    "cardiac": (
        """chest; left arm; right arm; jaw; left calf; right calf; left ankle; right
        ankle; epigastric=epigastrium""",
        "tightness; swelling; heaviness; discomfort; throbbing",
    ),
    "oncology": (
        """left breast; right breast; left axillary=left axilla; right axillary=right
        axilla; pelvic=pelvis; flank; rib; oral=mouth; left groin; right groin;
        supraclavicular=neck""",
        "lump; tenderness; aching; fullness; bleeding",
    ),
    "neuro": (
        """left arm; right arm; left leg; right leg; left facial=left side of the
        face; right facial=right side of the face; left hand; right hand; perioral=lips;
        bilateral leg=legs""",
        "weakness; numbness; tingling; twitching; spasms; clumsiness",
    ),
    "infectious": (
        """throat; left ear; right ear; suprapubic=lower abdomen; loin; right knee;
        left knee; wound; scrotal=scrotum; perianal=perineum; left eye; right eye; toe""",
        "pain; discharge; redness; soreness; irritation",
    ),
}

_MEDICATIONS = {
    "shared": """paracetamol; ibuprofen; omeprazole; lansoprazole; metformin; amlodipine;
        simvastatin; levothyroxine|thyroxine; insulin|insulin glargine; prednisolone|pred;
        salbutamol; codeine; folic acid; iron|ferrous sulphate; vitamin D|colecalciferol;
        lactulose; senna; allopurinol; naproxen; tramadol; cetirizine; gliclazide;
        beclometasone; alendronic acid; potassium|Sando-K""",
    "cardiac": """aspirin|ASA; clopidogrel; furosemide|frusemide; glyceryl trinitrate|GTN;
        warfarin; isosorbide mononitrate|ISMN; bisoprolol|biso; ramipril; spironolactone|spiro;
        digoxin; amiodarone; apixaban; rivaroxaban; ivabradine; sacubitril/valsartan|Entresto;
        eplerenone; enoxaparin|LMWH; heparin; ticagrelor; dapagliflozin; nicorandil; ranolazine;
        hydralazine; magnesium; Cardivex; Olmetra; Rhythmax; Presotan; Venlor; Corduna; Flowin;
        Aterplex""",
    "oncology": """tamoxifen; letrozole; cisplatin; carboplatin; paclitaxel; docetaxel;
        capecitabine; trastuzumab|Herceptin; pembrolizumab; cyclophosphamide; doxorubicin;
        ondansetron; vincristine; fluorouracil|5-FU; methotrexate|MTX; rituximab; goserelin;
        denosumab; filgrastim|G-CSF; dexamethasone|dex; morphine|MST; oxycodone; fentanyl;
        zoledronic acid; megestrol; aprepitant; Oncavir; Tumelix; Zaltiva; Neoplar; Mabrena;
        Cytoral; Lymfida; Exanova""",
    "neuro": """levetiracetam|Keppra; sodium valproate|valproate|VPA; carbamazepine|CBZ;
        lamotrigine; co-careldopa|Sinemet; donepezil; memantine; sertraline; fluoxetine;
        citalopram; lithium; olanzapine; quetiapine; risperidone; clozapine; haloperidol;
        diazepam; lorazepam|Ativan; gabapentin; pregabalin; amitriptyline|ami; mirtazapine;
        sumatriptan; pyridostigmine; baclofen; propranolol; melatonin; Serenol; Cogniva;
        Epilaxa; Moodara; Neurexil; Tremadin; Zenapax""",
    "infectious": """amoxicillin|amox; co-amoxiclav|Augmentin; flucloxacillin|fluclox;
        doxycycline|doxy; clarithromycin|clari; ceftriaxone; gentamicin|gent; vancomycin|vanc;
        nitrofurantoin; aciclovir; metronidazole|metro; trimethoprim;
        piperacillin/tazobactam|pip-taz|Tazocin; fluconazole; benzylpenicillin|benpen;
        rifampicin; isoniazid; oseltamivir; linezolid; meropenem; permethrin; chloramphenicol;
        nystatin; Bactrosil; Virodine; Mycofex; Septazol; Pulmocin; Dermacide; Otivax""",
}

_STARTS = """bel; tor; cav; nex; lim; ras; vor; pel; dac; zol; mir; fen; tal; sud; kem;
        lov; ari; osti; bri; cru; ven; gal; ple; quin"""

_STEMS = {
    "cardiac": "olol; april; asartan; odipine; adarone; axaban; osuvastatin; aserod",
    "oncology": "atinib; aciclib; oplatin; orubicin; izumab; utaxel; aparib; odegib",
    "neuro": "azepam; iptyline; eridone; apine; agabalin; oxetine; iracetam; atriptan",
    "infectious": "acillin; omycin; afloxacin; aconazole; acyclovir; ocycline; openem; adelavir",
}
