"""Sentences that ask for a task, and sentences that ask for none; written for this project."""

from types import MappingProxyType
from typing import Final

NONE: Final = "none"
"""The label of what nobody pages a network for."""


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.strip().splitlines())


EXAMPLES: Final = MappingProxyType(
    {
        "embeddings": _lines("""
            embed english text
            turn sentences into vectors for semantic search
            i need vectors for my documents
            compute text embeddings for a vector database
            index our knowledge base with sentence vectors
            similarity search over support tickets
            encode product descriptions so that i can find near duplicates
            vectorise short messages
            sentence representations for clustering
            make our wiki searchable by meaning
            dense retrieval encoder for queries
            feature vectors of sentences
            embedding model for retrieval
        """),
        "chat": _lines("""
            a chat model for our help desk
            talk to customers in a web widget
            chatbot for the support page
            an assistant that answers in real time
            interactive conversation with a language model
            large language model for dialogue
            stream replies to users in a messaging app
            i want an llm behind my app
            respond to users like a human agent
            virtual agent for the call centre
            general purpose instruct model
            generate text from prompts interactively
            a voice assistant's brain
        """),
        "summarization": _lines("""
            summarise long reports
            short summaries of meeting minutes
            condense news articles into three sentences
            give me the gist of legal documents
            make abstracts of papers
            shorten emails to bullet points
            digest of incident logs
            tl;dr of threads
            boil down call notes
            executive summary of contracts
        """),
        "translation": _lines("""
            translate user reviews
            english to french translation
            turn german manuals into english
            localise our app strings
            machine translation of chat messages
            convert spanish emails to english
            translation of product pages into several languages
            live interpretation of text messages between languages
            render documents in another language
            bilingual text conversion
        """),
        "transcription": _lines("""
            transcribe phone calls
            speech to text for meetings
            turn voice notes into text
            live captions for a stream
            subtitles for videos
            dictation for doctors
            recognise what callers say
            automatic speech recognition
            write down what is said in an audio recording
            convert recordings of interviews to text
            voice to text
        """),
        "speech-synthesis": _lines("""
            text to speech for announcements
            read articles aloud
            a natural voice for our ivr
            synthesise speech from text
            voice over for videos
            speak notifications to drivers
            generate audio from written text
            audio version of blog posts
            say the text with a human voice
        """),
        "classification": _lines("""
            classify support tickets by topic
            route emails to the right team
            sentiment of product reviews
            label short texts with categories
            detect the intent of user messages
            sort incoming mail into categories
            decide whether a review is positive or negative
            tag articles with subjects
            text classification
            predict the topic of a document
            which department does a message belong to
        """),
        "moderation": _lines("""
            moderate comments
            detect hate speech in posts
            filter abusive messages
            content safety check for user uploads
            block toxic chat messages
            flag harmful text
            spam filtering for forums
            check whether a message breaks our rules
            find insults in comments
        """),
        "reranking": _lines("""
            rerank search results
            score passages by relevance to a query
            put the best documents first
            order candidates by relevance
            cross encoder for search
            relevance scoring of hits
            improve the ranking of retrieved passages
        """),
        "question-answering": _lines("""
            answer questions about our manuals
            question answering over documents
            find the answer to a question in a text
            retrieval augmented answers from our wiki
            reply to factual questions from the handbook
            look up answers in policies
            extractive question answering
            ask our documentation
        """),
        "code-completion": _lines("""
            complete code in the editor
            code assistant for developers
            generate python functions
            autocomplete for programmers
            write unit tests automatically
            suggest the next line of code
            a coding model for our ide
            fill in the middle for source code
            turn comments into code
            review pull requests automatically
        """),
        "extraction": _lines("""
            extract names and dates from contracts
            named entity recognition on news
            pull invoice numbers out of emails
            find companies and people in text
            structured fields from free text
            parse addresses in messages
            information extraction from forms
            pick out product names
            get the key facts of a document as json
        """),
        "image-classification": _lines("""
            classify images
            tag photos
            recognise plants in pictures
            which product is on the photo
            label pictures by category
            image recognition for a shop
            tell cats from dogs in images
            sort photos into albums by content
            detect whether an x-ray is normal
        """),
        "object-detection": _lines("""
            detect people in camera frames
            count cars on a video stream
            find defects on a production line with cameras
            locate objects in images
            bounding boxes for pedestrians
            video analytics at the edge
            watch a parking lot for free spaces
            detect helmets on a construction site
        """),
        "image-generation": _lines("""
            generate images from text
            create illustrations for articles
            draw product mock-ups
            text to image
            make pictures from a description
            render concept art
            generate marketing visuals
            diffusion model for artwork
        """),
        "ocr": _lines("""
            read scanned invoices
            optical character recognition
            text from photographed documents
            digitise paper forms
            read number plates
            get text out of images
            scan receipts
            recognise handwriting
            read meter displays from photos
        """),
        NONE: _lines("""
            what is the weather tomorrow
            book a flight to madrid
            order a pizza
            what is the capital of peru
            tell me a joke
            how do i reset my password
            cancel my subscription
            i want to speak to a person
            how old is the universe
            set an alarm for seven
            play some music
            who won the match yesterday
            my card has not arrived
            what time is it in tokyo
            how do i cook rice
            turn off the lights
            where is my parcel
            thank you very much
            hello there
            good morning
            how are you today
            increase my credit limit
            a bigger data plan for my phone
            rent a car for the weekend
            find a restaurant nearby
            i lost my sim card
            what is two plus two
            write me a poem about the sea
            what is the meaning of life
            book a table for two
            how much is the rent
            i need a new phone
            a virtual machine with four cores
            a kubernetes cluster
            object storage for backups
            a database with replication
            block this number
            pay my bill
            what are your opening hours
            buy train tickets
            a fast internet connection at home
            an ssl certificate
            roaming charges abroad
            repair my router
        """),
    }
)
"""By task."""
